"""Keeping the parts of a deployment running: start, register, watch, start again, end.

One supervisor serves a whole deployment (`deploy up`) or one part of it on its own machine
(`deploy superlink`, `deploy node`). It writes what it knows to ``state.json`` beside the parts,
which is all that `deploy status`, `deploy stop` and `llm-qfl run --on` read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from core import UserError, explain, held, read_json, write_json
from llm_qfl.cli.deploy.admission import admit, forget_numbers, keys_seen
from llm_qfl.cli.deploy.folder import Facts
from llm_qfl.cli.deploy.parts import GATE, SUPERLINK, Part, flower_home
from llm_qfl.cli.flower import Flwr
from llm_qfl.cli.formatting import LONGEST, clip, one_line
from llm_qfl.cli.outcome import INTERRUPTED
from llm_qfl.cli.processes import alive, end_all, members, wait_for
from llm_qfl.cli.superlink import LaunchError

STATE = "state.json"

LOCK = "lock"
"""File that a folder's supervisor holds locked as long as it lives."""

START_SECONDS = 180.0
"""Longest wait for a part; on a quiet machine a SuperLink takes 3 s, a SuperNode 5 s."""

LOOK_SECONDS = 15.0
"""Wait for a node to join before it is looked at what may keep it."""

AGAIN_SECONDS = 10.0
"""Wait before a part that ended is started again."""

MOST_MOVES = 5
"""How often a starting node takes another port: one that was free may be taken in between."""

ADMIT_SECONDS = 75.0
"""How long a node knocks at first: after a kill Flower lets it in only when it has missed it."""


@dataclass
class Supervisor:
    """Starts parts in their order and keeps them running until it is told to stop.

    Parameters
    ----------
    folder : Path
        Where ``state.json`` is written.
    parts : sequence of Part
        A SuperLink, if there is one, comes first.
    tag : str
        Mark of every process that descends from us.
    flwr : str
        Absolute path of Flower's command.
    say : callable
        Takes each line for the user.
    patient : bool
        Whether a node waits as long as it takes for a SuperLink on another machine.
    """

    folder: Path
    parts: Sequence[Part]
    tag: str
    flwr: str
    say: Callable[[str], None]
    patient: bool = False
    _again: dict[str, float] = field(init=False, default_factory=dict)
    _unwritten: bool = field(init=False, default=False)
    _keys: object = field(init=False, default=None)
    _keys_due: float = field(init=False, default=0.0)
    _refused: str = field(init=False, default="")

    def start(self) -> None:
        """Start every part and wait until all are ready.

        Raises
        ------
        LaunchError
            If one does not come up.
        """
        self._write(ready=False)
        if self._unwritten:  # neither `status` nor `stop` would find us
            raise LaunchError(f"{self.folder / STATE} cannot be written")
        for part in self.parts:
            if part.of_node and not part.is_node:
                continue  # once its node has settled on a port
            _begin(part)
            if not part.is_node:
                self._wait(part)
            if part.name == SUPERLINK:
                self.register(part)
            elif part.name == GATE:
                self.say(f"  {GATE:<14} port {part.port}: nodes alone may pass")
        for part in self.parts:
            if part.is_node:
                self._wait(part)
                self.say(f"  {part.name:<14} joined as {part.node_id()}")
            elif part.of_node:
                _begin(part)
                self._wait(part)
        self._write(ready=True)

    def _wait(self, part: Part) -> None:
        """Wait for a part; a node that is not let in yet tries again for a while."""
        began, told, waits, looked, moves = time.monotonic(), False, False, False, 0
        while not part.ready():
            waited = time.monotonic() - began
            if part.is_node and part.port_taken() and moves < MOST_MOVES:
                moves += 1
                part.move()
                part.start()
            elif part.dead():
                if not part.refused() or (told and waited > ADMIT_SECONDS):
                    raise LaunchError(_line(f"{part.name} did not start: {part.why()}", part))
                if not told:
                    self._write(ready=False)  # with the reason, for `deploy status`
                    self.say(f"  {part.name:<14} not admitted yet; trying again for a minute")
                    told = True
                time.sleep(AGAIN_SECONDS)
                part.start()
            elif waited > START_SECONDS and self.patient and part.is_node:
                if not waits:
                    self.say(f"  {part.name:<14} waiting for the SuperLink (log: {part.log})")
                    waits = True
            elif waited > START_SECONDS:
                seen = part.probe() or f"not ready after {START_SECONDS:.0f} s"
                raise LaunchError(_line(f"{part.name} did not start: {seen}", part))
            elif not looked and waited > LOOK_SECONDS:
                looked = True
                if seen := part.probe():
                    self.say(f"  {part.name:<14} has not joined yet: {seen}")
            time.sleep(0.2)

    def register(self, superlink: Part) -> None:
        """Tell the SuperLink which nodes it may admit: those whose public keys it has.

        Raises
        ------
        LaunchError
            If it refuses a key, or to throw out a revoked one.
        """
        home = flower_home(superlink.folder)
        flwr = Flwr(self.flwr, home, superlink.environment, home / "flwr.log")
        flwr.connect(f"127.0.0.1:{superlink.port}", superlink.folder / "ca.crt")
        self._keys = keys_seen(superlink.folder)
        try:
            number = admit(flwr, superlink.folder)
        except LaunchError as error:
            raise LaunchError(_line(str(error), superlink)) from None
        count = f"{number} node{'s' * (number != 1)} registered"
        self.say(f"  {'superlink':<14} 127.0.0.1:{superlink.port}, TLS, {count}")

    def watch(self) -> None:
        """Start again what ends, for ever; the caller's signal ends this."""
        while True:
            self.look(time.monotonic())
            time.sleep(0.5)

    def look(self, now: float) -> None:
        """Look at each part once: start one again whose time has come, note who is ready."""
        for part in self.parts:
            part.trim_log()
            server = part.follows
            if server is not None and (server.dead() or server.port != part.port):
                _end(part)  # with the app that it has started: nobody takes its result
            if not part.dead():
                continue
            due = self._again.get(part.name)
            if due is None:
                self.say(f"  {part.name:<14} ended ({part.why()}); starting it again")
                self._again[part.name] = now + AGAIN_SECONDS
                self._write(ready=False)
            elif now >= due and (server is None or server.ready()):
                self._again[part.name] = now + AGAIN_SECONDS
                self._start_again(part)
        for part in self.parts:
            if part.name in self._again and part.ready():
                del self._again[part.name]
                self.say(f"  {part.name:<14} is back")
                self._write(ready=not self._again)
        if self._unwritten:
            self._write(ready=not self._again)
        for part in self.parts:
            if part.name == SUPERLINK and part.ready() and now >= self._keys_due:
                self._look_at_keys(part, now)

    def _look_at_keys(self, superlink: Part, now: float) -> None:
        """Register, or throw out, what has come into its folders since; a refusal is told once."""
        try:
            if keys_seen(superlink.folder) == self._keys:
                return
            self.register(superlink)
        except (LaunchError, OSError) as error:  # of the system's: a full disk
            self._keys, self._keys_due = None, now + AGAIN_SECONDS
            if str(error) != self._refused:
                self.say(f"  {'superlink':<14} {error}")
            self._refused = str(error)
        else:
            self._refused = ""

    def _start_again(self, part: Part) -> None:
        if part.is_node and part.port_taken():
            part.move()
        try:
            _begin(part)
        except OSError as error:  # no room for its log: it is tried again
            self.say(f"  {part.name:<14} not started: {error.strerror or error}")

    def close(self, grace: float = 10.0) -> int:
        """End the nodes, then the SuperLink, so that the nodes can take their leave.

        Returns
        -------
        int
            Processes that could not be ended; 0 unless the system refuses.
        """
        for nodes in (True, False):
            leaving = [part for part in self.parts if part.of_node is nodes]
            for part in leaving:
                _end(part)
            wait_for(lambda: all(part.dead() for part in leaving), grace)  # noqa: B023 - at once
        left = end_all(members(self.tag), grace=3.0)
        if not left:
            _forget(self.folder, self.tag)
        return len(left)

    def _write(self, *, ready: bool) -> None:
        us = psutil.Process()
        parts = {
            part.name: {
                "pid": None if part.process is None else part.process.pid,
                "port": part.port,
                "node": part.node_id() if part.is_node else "",
                "why": part.why() if part.process is not None and part.dead() else "",
                "log": str(part.log),
                "starts_work": part.follows is not None,
            }
            for part in self.parts
        }
        known = {
            "pid": us.pid,
            "start": us.create_time(),
            "tag": self.tag,
            "ready": ready,
            "parts": parts,
        }
        try:
            write_json(self.folder / STATE, known)
        except OSError as error:  # a full disk: the parts must go on
            if not self._unwritten:
                self.say(f"{self.folder / STATE} cannot be written ({error.strerror or error})")
            self._unwritten = True
        else:
            self._unwritten = False


def read_state(folder: Path) -> dict[str, Any]:
    """Return what a running supervisor knows; empty if none runs for this folder."""
    return _if_running(read_json(folder / STATE))


def _if_running(state: dict[str, Any]) -> dict[str, Any]:
    return {} if _supervisor(state) is None else state


def _supervisor(state: dict[str, Any]) -> psutil.Process | None:
    """Return the living process that wrote a state."""
    try:
        process = psutil.Process(int(state.get("pid") or -1))
        same = process.create_time() == state.get("start")
    except (psutil.Error, ValueError):
        return None
    return process if same and alive(process) else None


def stop_supervisor(folder: Path, seconds: float = 40.0) -> tuple[bool, set[psutil.Process]]:
    """Ask the supervisor of a folder to end, and end what it leaves.

    Returns
    -------
    was : bool
        False if none runs; what a killed one left behind is ended all the same.
    remaining : set of psutil.Process
        Those that could not be ended; the folder's state stays while there are any.
    """
    left = read_json(folder / STATE)  # once: another supervisor may write its own meanwhile
    state = _if_running(left)
    remaining: set[psutil.Process] = set()
    if supervisor := _supervisor(state):
        remaining |= end_all({supervisor}, grace=seconds)
    if left.get("tag"):
        remaining |= end_all(members(str(left["tag"])), grace=5.0)
    if not remaining:
        _forget(folder, left.get("tag"))
    return bool(state), remaining


def _forget(folder: Path, tag: object) -> None:
    """Remove the state of one launch; another's is not ours to remove."""
    if read_json(folder / STATE).get("tag") == tag:
        (folder / STATE).unlink(missing_ok=True)


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Be a folder's only supervisor; the system gives the place up when we end, however.

    Raises
    ------
    UserError
        If another one runs.
    """
    taken = explain(
        f"{str(folder)!r} is being started or run by another process",
        "a deployment that does not run",
        f"use it, or end it first: llm-qfl deploy stop {folder}",
    )
    with held(folder / LOCK, taken):
        yield


def serve(supervisor: Supervisor, ready: Callable[[], object]) -> int:
    """Run a supervisor until SIGINT, SIGTERM or SIGHUP; everything has ended afterwards.

    Parameters
    ----------
    supervisor : Supervisor
        Not started yet.
    ready : callable
        Called once all is up.

    Returns
    -------
    int
        0 after an orderly end, 1 if a part did not come up, 130 if interrupted before.

    Raises
    ------
    UserError
        If another supervisor runs for the folder.
    """
    from llm_qfl.cli.processes import Interrupted, signals

    code = INTERRUPTED
    with sole(supervisor.folder), signals():
        try:
            supervisor.start()
            code = 0
            ready()
            supervisor.watch()
        except Interrupted:
            supervisor.say("stopping the parts ...")
        except LaunchError as error:
            supervisor.say(f"llm-qfl: {error}")
            code = 1
        finally:
            try:
                supervisor.close()
            except Interrupted:  # once more: without patience
                supervisor.close(grace=0.0)
    return code


def _begin(part: Part) -> None:
    if part.name == SUPERLINK:
        forget_numbers(part.folder)
    part.start()


def _end(part: Part) -> None:
    if part.process is not None:
        part.process.terminate()


def _line(text: str, part: Part) -> str:
    return f"{clip(one_line(text), LONGEST)} (log: {part.log})"


def running_port(facts: Facts) -> int:
    """Return the port of a deployment's SuperLink, from what runs if it is not fixed.

    Raises
    ------
    UserError
        If it does not run here.
    """
    if facts.control_port:
        return facts.control_port
    state = read_state(facts.control.parent)
    if not state.get("ready"):
        raise UserError(
            f"the deployment {str(facts.control.parent)!r} is not up",
            "one that runs, with all its nodes",
            f"start it: llm-qfl deploy up {facts.control.parent}",
        )
    return int(state["parts"]["superlink"]["port"])
