"""The steps of `llm-qfl deploy`. Each takes an absolute folder and returns an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from pathlib import Path
from typing import Any

from core import UserError, by_number, read_json
from llm_qfl.cli.children import LaunchError, print_json
from llm_qfl.cli.deploy import admission, keys, parts, peers, supervisor
from llm_qfl.cli.deploy.diagnosis import answers
from llm_qfl.cli.deploy.folder import (
    FACTS,
    Options,
    make_deployment,
    need_files,
    read_endpoint,
    read_facts,
)
from llm_qfl.cli.deploy.parts import EXEC, GATE, NODE, SUPERLINK, running
from llm_qfl.cli.deploy.supervisor import Part, Supervisor, read_state
from llm_qfl.cli.follow import INTERRUPTED, last_words, read_log
from llm_qfl.cli.processes import Interrupted, end_all, members, signals, wait_for

FAILED = 1

SOON_DAYS = 30
"""A certificate that ends within so many days is warned of."""

SERVER_SECONDS = 300.0
"""Longest wait of `start exec` and `register` for their server."""


def say(line: str) -> None:
    """Print a line at once: our output is often a file or a pipe."""
    with contextlib.suppress(OSError):  # its file's disk is full: the parts must go on
        print(line, flush=True)


def init(folder: Path, **options: Any) -> int:
    """Make certificates, keys and the parts' folders; start nothing."""
    if not _make(folder, **options):
        say(f"nothing to do, it is there already: {folder}")
        return 0
    facts = read_facts(folder)
    nodes = f"node-0/ ... node-{facts.nodes - 1}/" if facts.nodes > 1 else "node-0/"
    say(f"made {folder}")
    for name, use in (
        ("ca/", "signs certificates: keep it here and to yourself"),
        ("superlink/", "for the machine of the SuperLink"),
        (nodes, "one for each site, with its private key"),
        ("control/", "for whoever submits runs"),
    ):
        say(f"  {name:<{max(12, len(nodes) + 2)}}{use}")
    if facts.nodes > peers.MOST:
        say(f"not made for more than {peers.MOST} nodes: the sites' public keys in each node's")
        say("peers/, for privacy.secure_aggregation; copy superlink/nodes/ there")
    if facts.port:
        say("next, on each machine: llm-qfl deploy superlink FOLDER, or: deploy node FOLDER;")
        say("as services of systemd: llm-qfl deploy units FOLDER")
    else:
        say(f"next: llm-qfl deploy up {folder}")
    return 0


def _make(folder: Path, nodes: int | None, **more: Any) -> bool:
    """Make a deployment if there is none; return whether one was made."""
    if nodes is None and any(more.values()):
        given = "--host, --port or --node-set without --nodes"
        raise UserError(given, "all or none", "add --nodes")
    if nodes is None and (folder / FACTS).exists():
        return False
    if nodes is None:
        given = f"no deployment in {str(folder)!r}, and no --nodes"
        raise UserError(given, "how many SuperNodes to make", "add for instance --nodes 3")
    made = make_deployment(folder, Options(nodes, **more))
    for name in (SUPERLINK, *(f"node-{node}" for node in range(nodes))) if made else ():
        _write_units(folder / name)
    if made and read_endpoint(folder / SUPERLINK).gated:
        parts.write_gate(folder / SUPERLINK)
    return made


def up(folder: Path, *, detach: bool, **options: Any) -> int:
    """Make a deployment if there is none, and run all of it on this machine."""
    _make(folder, **options)
    nodes, logs = read_facts(folder).nodes, folder / "logs"
    all_parts = server_parts(SUPERLINK, folder / SUPERLINK, logs)
    for node in range(nodes):
        all_parts += server_parts(NODE, folder / f"node-{node}", logs, all_parts[0])
    _check(folder, all_parts)
    if detach:
        return _detached(folder)

    def ready() -> None:
        say(f"ready; in another terminal: llm-qfl run --on {folder}")
        say(f"stop with Ctrl-C, or: llm-qfl deploy stop {folder}")

    say(f"LLM-QFL deployment {folder}: a SuperLink and {nodes} SuperNode{'s' * (nodes != 1)}")
    return Supervisor(folder, all_parts, uuid.uuid4().hex, say).serve(ready)


def superlink(folder: Path) -> int:
    """Run the SuperLink of a deployment on this machine, for nodes on others."""
    return _run_server(SUPERLINK, folder, "ready: nodes may join")


def node(folder: Path) -> int:
    """Run one site's SuperNode on this machine."""
    return _run_server(NODE, folder, "ready: this node takes part in the runs of the SuperLink")


def _run_server(kind: str, folder: Path, ready: str) -> int:
    server = server_parts(kind, folder, folder)
    _check(folder, server)
    if kind == NODE:
        parts.superlink_address(folder)
    return Supervisor(folder, server, uuid.uuid4().hex, say).serve(lambda: say(ready))


def server_parts(kind: str, folder: Path, logs: Path, needs: Part | None = None) -> list[Part]:
    """Return a server with the SuperExec beside it and, of a SuperLink that others reach, a gate.

    Parameters
    ----------
    kind : str
        `SUPERLINK` or `NODE`.
    folder : Path
        ``superlink/`` or ``node-K/``.
    logs : Path
        Folder for their logs.
    needs : Part, optional
        The SuperLink that a node waits for.
    """
    name = SUPERLINK if kind == SUPERLINK else folder.name
    log = logs / f"{kind if logs == folder else name}.log"
    server = Part(name, kind, folder, log, needs)
    made = [server, Part(f"{name}-exec", EXEC, folder, log, server)]
    if (folder / "superlink.toml").exists() and read_endpoint(folder).gated:
        made.append(Part(GATE, GATE, folder, logs / "gate.log", server))
    return made


def _check(folder: Path, some: list[Part]) -> None:
    """Refuse what cannot start, before anything does; warn of a certificate that ends soon."""
    if state := read_state(folder):
        raise UserError(
            f"{str(folder)!r} is up already (process {state['pid']})",
            "a deployment that does not run",
            f"use it, or end it first: llm-qfl deploy stop {folder}",
        )
    _end(folder)  # what a killed one left
    for part in some:
        parts.check(part.kind, part.folder)
        if part.kind == SUPERLINK and (left := _days_left(part.folder)) < SOON_DAYS:
            say(f"the server's certificate ends in {left:.0f} days: llm-qfl deploy renew FOLDER")


def _days_left(superlink_folder: Path) -> float:
    return keys.days_left(superlink_folder / "server.crt")


def _detached(folder: Path) -> int:
    """Run `up` in a session of its own, and return once all is ready."""
    log = folder / "logs" / "up.log"
    log.unlink(missing_ok=True)
    with signals():
        process = supervisor.spawn(log, supervisor.deploy_command("up", folder))

        def is_up() -> bool:
            state = read_state(folder)  # perhaps another's, who was faster
            return state.get("pid") == process.pid and bool(state["ready"])

        try:
            wait_for(lambda: process.poll() is not None or is_up(), 600.0)
            code = 0 if is_up() else FAILED
        except Interrupted:
            code = INTERRUPTED
    if code:
        process.terminate()
        wait_for(lambda: process.poll() is not None, 40.0)
        process.kill()
        process.wait()
        _end(folder)
    last = last_words(read_log(log)).removeprefix("llm-qfl: ")
    if code == FAILED:
        where = "" if "(log:" in last else f" (log: {log})"
        raise LaunchError(f"{last or 'it did not come up'}{where}")
    if not code:
        say(read_log(log).replace("stop with Ctrl-C, or", "stop with").rstrip())
    return code


def start(folder: Path, part: str) -> int:
    """Become one part: Flower's own program, or nginx."""
    server = parts.server_kind(folder)
    if part == EXEC and not wait_for(lambda: answers(folder, server), SERVER_SECONDS, 0.5):
        raise LaunchError(f"the {server} of {folder} does not answer")
    parts.start_part(part, folder)
    return FAILED  # never: this process is the part now


def units(folder: Path) -> int:
    """Write systemd's units for the parts of a folder, where it lies now."""
    parts.check(parts.server_kind(folder), folder)
    for path in _write_units(folder):
        say(f"wrote {path}")
    say(f"next: sudo systemctl enable --now {folder}/systemd/*.service")
    return 0


def _write_units(folder: Path) -> list[Path]:
    server, *others = server_parts(parts.server_kind(folder), folder, folder)
    made = [parts.write_unit(part.name, part.kind, folder, server.name) for part in others]
    return [parts.write_unit(server.name, server.kind, folder), *made]


def register(folder: Path) -> int:
    """Have the SuperLink that runs from a folder admit the keys in it, once it answers."""
    superlink = _superlink_of(folder)
    if not wait_for(lambda: answers(superlink, SUPERLINK), SERVER_SECONDS, 0.5):
        raise LaunchError(f"the SuperLink of {superlink} does not answer")
    if read_endpoint(superlink).gated:
        parts.write_gate_keys(superlink)
    count = admission.register(superlink, int(running(superlink, SUPERLINK)["port"]))
    say(f"the SuperLink admits {count} node{'s' * (count != 1)}")
    return 0


def _superlink_of(folder: Path) -> Path:
    """Return the SuperLink's folder: that of a whole deployment, or the one that was given."""
    whole = folder / SUPERLINK if (folder / SUPERLINK).is_dir() else folder
    need_files(whole, parts.SUPERLINK_FILES, "superlink/")
    return whole


def status(folder: Path, *, as_json: bool = False) -> int:
    """Say whether the parts that run from a folder are well; 0 only if all are."""
    found = _status(folder)
    if as_json:
        print_json(found)
    elif not found["parts"]:
        say(f"nothing runs from {folder}")
    else:
        for one in found["parts"]:
            say(f"  {one['name']:<14} {one['state']} (process {one['pid']}, port {one['port']})")
        for left in found["certificate_days_left"].values():
            say(f"  certificate of the server: {left:.0f} days left")
    return 0 if found["well"] else FAILED


def _status(folder: Path) -> dict[str, Any]:
    """Return whether all is well, each part's state, and the days left of certificates."""
    homes = [*folder.glob("home"), *folder.glob("superlink/home"), *folder.glob("node-*/home")]
    places = sorted((home.parent for home in homes), key=by_number)
    known = [part for at in places for part in server_parts(parts.server_kind(at), at, at)]
    state = read_state(folder)
    if not state and not any(running(part.folder, part.kind) for part in known):
        return {"well": False, "parts": [], "certificate_days_left": {}}
    found: list[dict[str, Any]] = []
    for part in known:
        well = answers(part.folder, part.kind)
        words = ("starts no work", "starts work"), ("does not answer", "well")
        text = words[part.kind != EXEC][well]
        if part.name in state.get("nodes", {}):
            number = state["nodes"][part.name]
            text += f", node {number}" if number else ", not admitted yet"
        if not well and part.name in state.get("problems", {}):
            text += f": {state['problems'][part.name]}"
        record = read_json(part.folder / "home" / f"{part.kind}.json")
        about = {"name": part.name, "well": well, "state": text}
        found.append({**about, "pid": record.get("pid"), "port": record.get("port")})
    days = {str(at): _days_left(at) for at in places if (at / "server.crt").exists()}
    well = bool(state.get("ready", True)) and all(one["well"] for one in found)
    return {"well": well, "parts": found, "certificate_days_left": days}


def stop(folder: Path) -> int:
    """End what `up`, `superlink` or `node` started from a folder, in order."""
    was, remaining = _end(folder)
    if remaining:
        say(f"not stopped: {folder}; still running: {', '.join(map(str, remaining))}")
        return FAILED
    say(f"stopped {folder}" if was else f"nothing runs from {folder}")
    return 0


def _end(folder: Path, seconds: float = 40.0) -> tuple[bool, list[int]]:
    """End the supervisor of a folder and what it leaves, or what a killed one left.

    Returns
    -------
    was : bool
        Whether one ran.
    remaining : list of int
        Processes that could not be ended; the folder's state stays while there are any.
    """
    state = read_json(
        folder / supervisor.STATE
    )  # once: another supervisor may write its own meanwhile
    was = bool(parts.alive(state))
    if was:
        os.kill(state["pid"], signal.SIGTERM)
        wait_for(lambda: not parts.alive(state), seconds)
    left = end_all(members(str(state["tag"])), grace=5.0) if state.get("tag") else set()
    remaining = sorted(process.pid for process in left)
    if parts.alive(state):
        remaining.append(state["pid"])
    if not remaining:
        supervisor.forget(folder, state.get("tag"))
    return was, remaining


def renew(folder: Path) -> int:
    """Make a new server certificate for the same names, signed by the same authority."""
    authority = folder / "ca" / "ca.crt", folder / "ca" / "ca.key"
    certificate, key = folder / SUPERLINK / "server.crt", folder / SUPERLINK / "server.key"
    for path in (*authority, certificate):
        if not path.exists():
            raise UserError(f"{str(path)!r} is missing", "the folder with ca/", "renew it there")
    names = keys.server_names(certificate)
    new = certificate.with_name("server.crt.new"), key.with_name("server.key.new")
    with keys.drafts(*new):  # the old ones stay until the new ones are whole
        keys.make_server(authority, *new, names)
        new[1].replace(key)
        new[0].replace(certificate)
    say(f"good for {keys.SERVER_DAYS} days: {certificate}; start the SuperLink again with it")
    return 0


def revoke(folder: Path, node: str) -> int:
    """Throw out a node's key for good; in the whole deployment's folder it gets a new one."""
    superlink = _superlink_of(folder)
    at_hand = superlink != folder and (folder / node / "node.key").is_file()
    revoked = admission.revoke_key(superlink, node, folder / node if at_hand else None)
    say(f"revoked {node}: its key is now {revoked}")
    if at_hand:
        say(f"a new key is in {folder / node}; give its node.key to a site on another machine")
    _renew_peers(folder, superlink)
    if running(superlink, SUPERLINK):
        return register(superlink)
    say("the next SuperLink that starts here throws it out; one that runs from a copy of")
    say(f"{superlink} does at `llm-qfl deploy register`, with nodes/ and revoked/ of this one")
    return 0


def _renew_peers(folder: Path, superlink: Path) -> None:
    """Bring the sites' public keys at the nodes up to date, as far as they are here."""
    here = peers.distribute(folder) if superlink != folder and _has_peers(folder) else []
    if here:
        say(f"peers/ is up to date in {', '.join(here)}; sites elsewhere need a copy of theirs,")
        say("or take part in no secure aggregation with that node")
    else:
        say(f"sites with peers/ of their own need {superlink / admission.NODES} copied there,")
        say("or take part in no secure aggregation with that node")


def _has_peers(folder: Path) -> bool:
    return any(folder.glob(f"node-*/{peers.PEERS}"))
