"""`llm-qfl deploy up`, `superlink` and `node`: run parts on this machine until they are stopped.

Each part is `llm-qfl deploy start`, which becomes Flower's own program (or nginx). It starts once
the part that it needs is ready, and again 10 seconds after it ended. Elsewhere a service manager
does that (`llm-qfl deploy units`). ``state.json`` says who runs a folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from core import atomic_write, explain, file_lock, read_json, write_json
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.deploy.admission import register
from llm_qfl.cli.deploy.diagnosis import PORT_TAKEN, REFUSED, answers, probe, reason
from llm_qfl.cli.deploy.parts import (
    BESIDE,
    EXEC,
    GATE,
    NODE,
    SUPERLINK,
    alive,
    running,
    superlink_address,
)
from llm_qfl.cli.follow import INTERRUPTED, read_log
from llm_qfl.cli.formatting import LONGEST, clip, one_line
from llm_qfl.cli.processes import (
    TAG,
    Interrupted,
    die_with_parent,
    end_all,
    members,
    signals,
    wait_for,
)
from llm_qfl.cli.shipped import PACKAGES

STATE, LOCK = "state.json", "lock"

START_SECONDS = 180.0
"""Longest wait for a part; on a quiet machine a SuperLink takes 3 s, a SuperNode 5 s."""

CHECK_SECONDS = 15.0
"""Wait for a node to join before we look for what may keep it."""

RESTART_SECONDS = 10.0
"""Wait before a part that ended is started again."""

ADMIT_SECONDS = 75.0
"""How long a node is started again at first: Flower admits a killed one when it has missed it."""

MOST_LOG = 20_000_000
"""Bytes of a part's log before it begins again."""

_JOINED = re.compile(r"SuperNode ID: (\d+)")


def deploy_command(*words: object) -> list[str]:
    """Return a command of `llm-qfl deploy`, which takes no module from the working folder."""
    return [sys.executable, "-P", "-m", "llm_qfl.cli", "deploy", *map(str, words)]


def spawn(log: Path, words: list[str], **more: str) -> subprocess.Popen[bytes]:
    """Start a process with `more` in its environment, its output added to a log."""
    # Our packages are found from any folder.
    path = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH"))))
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            words,
            env={**os.environ, "PYTHONPATH": path, **more},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent() if more else None,  # `up` itself outlives its starter
        )


@dataclass
class Part:
    """One process of a deployment.

    Parameters
    ----------
    name, kind, folder
        Its name, one of the kinds in `parts`, and its folder.
    log : Path
        File that its output is added to.
    needs : Part, optional
        The part that must be ready before this one starts. A SuperExec and a gate end with it.
    words : list of str, optional
        Another command than `llm-qfl deploy start`.
    """

    name: str
    kind: str
    folder: Path
    log: Path
    needs: Part | None = None
    words: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    ready: bool = field(init=False, default=False)
    node_id: str = field(init=False, default="")
    problem: str = field(init=False, default="")
    first_start: float = field(init=False, default=0.0)
    due: float = field(init=False, default=0.0)
    _log_start: int = field(init=False, default=0)
    _beside: object = field(init=False, default=None)

    @property
    def of_node(self) -> bool:
        """Whether it is a SuperNode, or starts a SuperNode's work."""
        return NODE in (self.kind, self.needs and self.needs.kind)

    def start(self, tag: str) -> None:
        """Start the process."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        words = self.words or deploy_command("start", self.kind, self.folder)
        beside = {BESIDE: "1"} if self.kind == NODE and self.needs else {}
        self.process = spawn(self.log, words, **{TAG: tag}, **beside)
        self.node_id, self._beside = "", self.needs and self.needs.process
        self.first_start = self.first_start or time.monotonic()

    def ended(self) -> bool:
        """Whether its process has ended, and no note was taken of that."""
        return self.process is not None and self.process.poll() is not None

    def outlived(self) -> bool:
        """Whether it serves a server that has ended."""
        beside = self.needs and self.needs.process
        return self.kind in (EXEC, GATE) and self._beside is not beside

    def output(self) -> str:
        """Return its log since it was last started."""
        return read_log(self.log, self._log_start)

    def answers(self) -> bool:
        """Whether it does its work; of a node, also whether it has been admitted."""
        if self.kind == NODE and (joined := _JOINED.search(self.output())):
            self.node_id = joined.group(1)
        admitted = self.kind != NODE or bool(self.node_id)
        return admitted and answers(self.folder, self.kind)

    def obstacle(self) -> str:
        """Return what keeps a node from its SuperLink, if that can be seen from here."""
        waits = self.needs is not None and not self.needs.ready
        if self.kind != NODE or self.node_id or waits:
            return ""
        address = superlink_address(self.folder, beside=self.needs is not None)
        return probe(*address, self.folder / "ca.crt")

    def reason(self) -> str:
        """Say in one line why it ended, as far as it is known."""
        code = 0 if self.process is None else self.process.returncode or 0
        unadmitted = self.kind == NODE and not self.node_id
        port = int(read_json(self.folder / "home" / f"{self.kind}.json").get("port", 0))
        return self.obstacle() * (code >= 0) or reason(code, self.output(), port, unadmitted)

    def trim_log(self, most: int = MOST_LOG) -> None:
        """Start a new log when it is long, and keep the old one beside it."""
        if self.log.exists() and self.log.stat().st_size > most:
            older = self.log.with_name(f"{self.log.name}.1")
            atomic_write(older, lambda draft: shutil.copyfile(self.log, draft), mode=0o600)
            os.truncate(self.log, 0)  # the process adds to its end, wherever that is
            self._log_start = 0


@dataclass
class Supervisor:
    """Runs parts until they are stopped, and starts those again that end.

    Parameters
    ----------
    folder : Path
        Where ``state.json`` is written.
    parts : sequence of Part
        Each after the part that it needs.
    tag : str
        Mark of every process that descends from us.
    say : callable
        Takes each line for the user.
    """

    folder: Path
    parts: Sequence[Part]
    tag: str
    say: Callable[[str], None]
    ready: bool = field(init=False, default=False)
    _reported: set[str] = field(init=False, default_factory=set)

    def serve(self, ready: Callable[[], object]) -> int:
        """Run the parts until SIGINT, SIGTERM or SIGHUP; all have ended afterwards.

        Parameters
        ----------
        ready : callable
            Called once all parts are ready.

        Returns
        -------
        int
            0 after an orderly end, 1 if a part did not start, 130 if interrupted before.

        Raises
        ------
        UserError
            If another process runs the folder.
        """
        taken = explain(
            f"{str(self.folder)!r} is being started or run by another process",
            "a deployment that does not run",
            f"use it, or end it first: llm-qfl deploy stop {self.folder}",
        )
        with file_lock(self.folder / LOCK, taken), signals():
            try:
                while True:
                    self.step(time.monotonic())
                    if not self.ready and all(part.ready for part in self.parts):
                        self.ready = True
                        ready()
                    time.sleep(0.3)
            except Interrupted:
                self.say("stopping the parts ...")
                return 0 if self.ready else INTERRUPTED
            except (LaunchError, OSError) as error:
                self.say(f"llm-qfl: {error}")
                return 1
            finally:
                try:
                    self.close()
                except Interrupted:  # a second signal: end them at once
                    self.close(grace=0.0)

    def step(self, now: float) -> None:
        """Look at each part once: start what is due, note what is ready or has ended."""
        for part in self.parts:
            self._try(self._step, part, now)
        self._try(self._write_state)

    def _try(self, action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except OSError as error:  # a full disk: the parts must go on
            if not self.ready:
                raise
            self._report_once(f"{error.filename or self.folder}: {error.strerror or error}")

    def _step(self, part: Part, now: float) -> None:
        part.trim_log()
        if part.ended():
            part.problem, part.due = part.reason(), now + RESTART_SECONDS
            self._note_end(part, now - part.first_start)
            part.process, part.ready = None, False
        elif part.process is None:
            if now >= part.due and (part.needs is None or part.needs.ready):
                part.start(self.tag)
        elif part.outlived():
            part.process.terminate()
        elif not part.ready and part.answers():
            text = {NODE: f"joined as {part.node_id}", GATE: "only nodes may pass"}
            if part.kind == SUPERLINK:
                text[SUPERLINK] = self._register(part)
            part.ready, part.problem = True, ""
            self.say(f"  {part.name:<14} {text.get(part.kind, 'starts work')}")
        elif not part.ready and not self.ready:
            self._wait(part, now - part.first_start)

    def _register(self, part: Part) -> str:
        port = int(running(part.folder, SUPERLINK)["port"])
        try:
            count = register(part.folder, port)
        except LaunchError as error:
            if not self.ready:
                raise
            return str(error)
        return f"127.0.0.1:{port}, TLS, {count} node{'s' * (count != 1)} registered"

    def _wait(self, part: Part, waited: float) -> None:
        obstacle = part.obstacle() if waited > CHECK_SECONDS else ""
        if obstacle:
            self._report_once(f"  {part.name:<14} has not joined yet: {obstacle}")
        if waited > START_SECONDS and part.kind == NODE and part.needs is None:
            self._report_once(f"  {part.name:<14} waiting for the SuperLink (log: {part.log})")
        elif waited > START_SECONDS:
            raise _not_started(part, obstacle or f"not ready after {START_SECONDS:.0f} s")

    def _note_end(self, part: Part, waited: float) -> None:
        again = part.problem == REFUSED or PORT_TAKEN in part.output().lower()
        if self.ready:
            if part.ready:  # else that was reported: it ended again before it was ready
                self.say(f"  {part.name:<14} ended ({part.problem}); starting it again")
        elif part.kind == NODE and again and waited < ADMIT_SECONDS:
            self._report_once(f"  {part.name:<14} not admitted yet; trying again for a minute")
        else:
            raise _not_started(part, part.problem)

    def _report_once(self, line: str) -> None:
        if line not in self._reported:
            self._reported.add(line)
            self.say(line)

    def _write_state(self) -> None:
        me = {"pid": os.getpid(), "start": psutil.Process().create_time(), "tag": self.tag}
        problems = {part.name: part.problem for part in self.parts if part.problem}
        nodes = {part.name: part.node_id for part in self.parts if part.kind == NODE}
        ready = self.ready and all(part.ready for part in self.parts)  # and the user knows
        known = {**me, "ready": ready, "problems": problems, "nodes": nodes}
        if read_json(self.folder / STATE) != known:
            write_json(self.folder / STATE, known)

    def close(self, grace: float = 10.0) -> int:
        """End the nodes, which sign off, then the SuperLink; return how many remain."""
        for of_node in (True, False):
            leaving = [part for part in self.parts if part.of_node is of_node and part.process]
            for part in leaving:
                part.process.terminate()  # type: ignore[union-attr]
            wait_for(lambda: all(part.ended() for part in leaving), grace)  # noqa: B023 - at once
        left = end_all(members(self.tag), grace=3.0)
        if not left:
            forget(self.folder, self.tag)
        return len(left)


def _not_started(part: Part, reason: str) -> LaunchError:
    line = clip(one_line(f"{part.name} did not start: {reason}"), LONGEST)
    return LaunchError(f"{line} (log: {part.log})")


def read_state(folder: Path) -> dict[str, Any]:
    """Return what a running supervisor knows; empty if none runs for this folder."""
    return alive(read_json(folder / STATE))


def forget(folder: Path, tag: object) -> None:
    """Remove the state of one launch; another's is not ours to remove."""
    if read_json(folder / STATE).get("tag") == tag:
        (folder / STATE).unlink(missing_ok=True)
