"""`llm-qfl deploy`: a federation of separate processes, on one machine or one part of it here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from core import UserError, explain, read_json
from llm_qfl.cli.deploy.admission import is_out, revoke_key
from llm_qfl.cli.deploy.folder import (
    FACTS,
    Facts,
    Options,
    make_deployment,
    need_files,
    read_door,
    read_facts,
)
from llm_qfl.cli.deploy.gate import gate_part
from llm_qfl.cli.deploy.keys import SERVER_DAYS, days_left, make_server, server_names
from llm_qfl.cli.deploy.parts import (
    GATE,
    SUPERLINK,
    SUPERLINK_FILES,
    Part,
    node_part,
    superlink_part,
)
from llm_qfl.cli.deploy.serve import (
    STATE,
    Supervisor,
    read_state,
    serve,
    stop_supervisor,
)
from llm_qfl.cli.deploy.superexec import asks_for_work, exec_part
from llm_qfl.cli.follow import last_words, read_log
from llm_qfl.cli.outcome import INTERRUPTED
from llm_qfl.cli.plan import find_programs
from llm_qfl.cli.processes import Interrupted, signals, wait_for
from llm_qfl.cli.shipped import PACKAGES
from llm_qfl.cli.superlink import free_port, healthy

FAILED = 1

SOON_DAYS = 30
"""A certificate that ends within so many days is warned of."""


OUT_SECONDS = 60.0
"""How long `revoke` waits for the supervisor that is to throw a key out."""


def say(line: str) -> None:
    """Print a line at once: a supervisor's output is often a file or a pipe."""
    try:
        print(line, flush=True)
    except OSError:  # its file's disk is full: a supervisor must go on
        return


def init(folder: Path, options: Options | None) -> int:
    """Make certificates, keys and the parts' folders; start nothing."""
    folder = folder.absolute()
    if options is None:
        raise UserError(_how_many(folder))
    made = make_deployment(folder, options)
    say(f"{'made' if made else 'nothing to do, it is there already:'} {folder}")
    if made:
        last = options.nodes - 1
        nodes = f"node-0/ ... node-{last}/" if last else "node-0/"
        width = max(12, len(nodes) + 2)
        say(f"  {'ca/':<{width}}signs certificates: keep it here and to yourself")
        say(f"  {'superlink/':<{width}}for the machine of the SuperLink")
        say(f"  {nodes:<{width}}one for each site, with its private key")
        say(f"  {'control/':<{width}}for whoever submits runs")
        if options.hosts:
            say("next, on each machine: llm-qfl deploy superlink FOLDER, or: deploy node FOLDER")
        else:
            say(f"next: llm-qfl deploy up {folder}")
    return 0


def up(folder: Path, options: Options | None, *, detach: bool) -> int:
    """Make a deployment if there is none, and run all of it on this machine."""
    folder = folder.absolute()
    if options is not None:
        make_deployment(folder, options)
    elif not (folder / FACTS).exists():
        raise UserError(_how_many(folder))
    facts = read_facts(folder)
    _refuse_running(folder)
    programs = find_programs("flower-supernode", "flower-superexec")
    if detach:
        # Everything that can be checked is, before the user's terminal is left alone.
        _all_parts(folder, facts, programs, "")
        return _detached(folder)
    tag = uuid.uuid4().hex
    parts = _all_parts(folder, facts, programs, tag)
    say(f"LLM-QFL deployment {folder}: a SuperLink and {_nodes(facts.nodes)}")
    _warn_of_expiry(folder / "superlink")

    def ready() -> None:
        say(f"ready; in another terminal: llm-qfl run --on {folder}")
        say(f"stop with Ctrl-C, or: llm-qfl deploy stop {folder}")

    return serve(Supervisor(folder, parts, tag, programs["flwr"], say), ready)


def _all_parts(folder: Path, facts: Facts, programs: dict[str, str], tag: str) -> list[Part]:
    logs = folder / "logs"
    port, home = facts.control_port or free_port(), folder / "superlink"
    parts = _with_exec(superlink_part(home, programs, tag, port, logs / "superlink.log"), programs)
    parts += gate_part(home, tag, port, logs / "gate.log")
    for number in range(facts.nodes):
        name = f"node-{number}"
        log = logs / f"{name}.log"
        node = node_part(folder / name, programs, tag, f"127.0.0.1:{port}", log)
        parts += _with_exec(node, programs)
    return parts


def _with_exec(server: Part, programs: dict[str, str]) -> list[Part]:
    return [server, exec_part(server, programs["flower-superexec"])]


def _detached(folder: Path) -> int:
    log = folder / "logs" / "up.log"
    log.parent.mkdir(mode=0o700, exist_ok=True)
    process: subprocess.Popen[bytes] | None = None
    is_up = False
    with signals():
        try:
            process = _supervise(folder, log)
            is_up = _comes_up(folder, process)
        except Interrupted:
            return INTERRUPTED
        finally:
            if process is not None and not is_up:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)  # nothing may be left running
                _end(folder, process)
    if not is_up:
        said = last_words(read_log(log)).removeprefix("llm-qfl: ")
        told = said if "(log:" in said else f"{said or 'it did not come up'} (log: {log})"
        print(f"llm-qfl: {told}", file=sys.stderr)
        return FAILED
    for line in read_log(log).splitlines():
        say(line.replace("stop with Ctrl-C, or", "stop with"))
    return 0


def _supervise(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    # Never a module that lies in the working folder (-P); this checkout's come first.
    paths = str(PACKAGES), os.environ.get("PYTHONPATH")
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "llm_qfl.cli", "deploy", "up", str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _comes_up(folder: Path, process: subprocess.Popen[bytes], seconds: float = 600.0) -> bool:
    """Wait until all that a supervisor of ours started is ready, or until it has ended."""

    def is_up() -> bool:
        state = read_state(folder)  # perhaps another's, who was faster
        return state.get("pid") == process.pid and bool(state.get("ready"))

    wait_for(lambda: process.poll() is not None or is_up(), seconds)
    return is_up()


def _end(folder: Path, process: subprocess.Popen[bytes], seconds: float = 40.0) -> None:
    """End a supervisor of ours and all it started, however far it got."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if read_json(folder / STATE).get("pid") == process.pid:
        stop_supervisor(folder)  # it could not tidy up itself


def superlink(folder: Path) -> int:
    """Run the SuperLink of a deployment on this machine, for nodes on others."""
    folder = folder.absolute()
    _refuse_running(folder)
    programs, tag = find_programs("flower-supernode", "flower-superexec"), uuid.uuid4().hex
    part = superlink_part(folder, programs, tag, 0, folder / "superlink.log")
    parts = [*_with_exec(part, programs), *gate_part(folder, tag, part.port, folder / "gate.log")]
    _warn_of_expiry(folder)
    return serve(
        Supervisor(folder, parts, tag, programs["flwr"], say),
        lambda: say("ready: nodes may join"),
    )


def node(folder: Path) -> int:
    """Run one site's SuperNode on this machine."""
    folder = folder.absolute()
    _refuse_running(folder)
    programs, tag = find_programs("flower-supernode", "flower-superexec"), uuid.uuid4().hex
    part = node_part(folder, programs, tag, "", folder / "node.log")
    return serve(
        Supervisor(folder, _with_exec(part, programs), tag, programs["flwr"], say, patient=True),
        lambda: say("ready: this node takes part in the runs of the SuperLink"),
    )


def status(folder: Path) -> int:
    """Say whether the parts that run from a folder are well; 0 only if all are."""
    folder = folder.absolute()
    state = read_state(folder)
    if not state:
        say(f"nothing runs from {folder}")
        return FAILED
    well = bool(state.get("ready"))
    for name, part in state.get("parts", {}).items():
        answers = _answers(folder, name, part)
        well = well and answers
        said = "well" if answers else "does not answer"
        if part.get("starts_work"):
            said = "starts work" if answers else "starts no work"
        elif name not in (SUPERLINK, GATE):
            said += f", node {part['node']}" if part["node"] else ", not admitted yet"
        if part.get("why") and not answers:
            said += f": {part['why']}"
        say(f"  {name:<14} {said} (process {part['pid']}, port {part['port']})")
    for place in (folder / "superlink", folder):
        if (place / "superlink.toml").exists():
            say(f"  certificate of the server: {days_left(place / 'server.crt'):.0f} days left")
    return 0 if well else FAILED


def _answers(folder: Path, name: str, part: dict[str, Any]) -> bool:
    """Whether a part of a running deployment does what it is for."""
    if part.get("starts_work"):
        return asks_for_work(int(part["pid"] or 0), int(part["port"]))
    authority = _superlink_of(folder) / "ca.crt" if name in (SUPERLINK, GATE) else None
    host = read_door(_superlink_of(folder)).here if name == GATE else "127.0.0.1"
    return healthy(int(part["port"]), host, authority)


def _superlink_of(folder: Path) -> Path:
    """Return the SuperLink's folder: that of a whole deployment, or the one that was given."""
    whole = folder / "superlink"
    return whole if whole.is_dir() else folder


def stop(folder: Path) -> int:
    """End what runs from a folder, in order."""
    folder = folder.absolute()
    was, remaining = stop_supervisor(folder)
    if remaining:
        pids = ", ".join(str(process.pid) for process in sorted(remaining, key=lambda p: p.pid))
        say(f"not stopped: {folder}; still running: {pids}")
        return FAILED
    say(f"stopped {folder}" if was else f"nothing runs from {folder}")
    return 0


def renew(folder: Path) -> int:
    """Make a new server certificate for the same names, signed by the same authority."""
    folder = folder.absolute()
    authority = folder / "ca" / "ca.crt", folder / "ca" / "ca.key"
    certificate, key = folder / "superlink" / "server.crt", folder / "superlink" / "server.key"
    for path in (*authority, certificate):
        if not path.exists():
            raise UserError(f"{str(path)!r} is missing", "the folder with ca/", "renew it there")
    names = server_names(certificate)
    new = certificate.with_name("server.crt.new"), key.with_name("server.key.new")
    try:  # the old ones stay until the new ones are whole
        for path in new:
            path.unlink(missing_ok=True)
        make_server(authority, *new, names)
        new[1].replace(key)
        new[0].replace(certificate)
    finally:
        for path in new:
            path.unlink(missing_ok=True)
    say(f"good for {SERVER_DAYS} days: {certificate}; start the SuperLink anew with it")
    return 0


def revoke(folder: Path, node: str) -> int:
    """Throw out a node's key for good; in the whole deployment's folder it gets a new one."""
    folder = folder.absolute()
    superlink = _superlink_of(folder)
    need_files(superlink, SUPERLINK_FILES, "superlink/")
    at_hand = superlink != folder and (folder / node / "node.key").is_file()
    place = folder / node if at_hand else None
    kept = revoke_key(superlink, node, place)
    say(f"revoked {node}: its key is now {kept}")
    if place is not None:
        say(f"a new key is in {place}; where that site is on another machine, give it node.key")
    above = superlink.parent if (superlink.parent / FACTS).is_file() else superlink
    if not (read_state(above) or read_state(superlink)):
        say("the next SuperLink that starts here throws it out; one that runs from a copy of")
        say(f"{superlink} does once it has nodes/ and revoked/ of this one")
        return 0
    with signals():
        try:
            gone = wait_for(lambda: is_out(superlink, kept), OUT_SECONDS)
        except Interrupted:
            return INTERRUPTED
    if not gone:
        print(
            f"llm-qfl: the SuperLink has not thrown it out within {OUT_SECONDS:.0f} s; its "
            "supervisor goes on trying, and says why not",
            file=sys.stderr,
        )
        return FAILED
    say("the SuperLink that runs has thrown it out")
    return 0


def _refuse_running(folder: Path) -> None:
    state = read_state(folder)
    if state:
        raise UserError(
            f"{str(folder)!r} is up already (process {state['pid']})",
            "a deployment that does not run",
            f"use it, or end it first: llm-qfl deploy stop {folder}",
        )
    if (folder / STATE).exists():
        stop_supervisor(folder)  # a killed one's leavings


def _warn_of_expiry(folder: Path) -> None:
    left = days_left(folder / "server.crt")
    if left < SOON_DAYS:
        say(f"the server's certificate ends in {left:.0f} days: llm-qfl deploy renew FOLDER")


def _nodes(count: int) -> str:
    return f"{count} SuperNode{'s' * (count != 1)}"


def _how_many(folder: Path) -> str:
    return explain(
        f"no deployment in {str(folder)!r}, and no --nodes",
        "how many SuperNodes to make",
        "add for instance --nodes 3",
    )
