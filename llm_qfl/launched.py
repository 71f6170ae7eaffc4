"""A run in other processes, from Python: Flower's simulation, or a deployment's nodes.

The launcher of ``llm-qfl run`` starts and ends it; callbacks see what it writes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import Settings, SettingsError, UserError, flatten
from core.formatting import toml_value
from core.registry import POINTS, registered
from llm_qfl.callbacks import Callbacks, Progress
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.follow import COMPLETED, INTERRUPTED, Event
from llm_qfl.cli.plan import Plan, make_plan, make_run_folder, resumed_plan
from llm_qfl.cli.preflight import preflight
from llm_qfl.cli.processes import Interrupted, signals
from llm_qfl.cli.run import deployment, launch
from llm_qfl.cli.screen import Screen
from llm_qfl.configuration import Folder, changes, new_settings
from llm_qfl.result import Result

if TYPE_CHECKING:
    from llm_qfl.cli.deploy.folder import Facts


class _Watched(Screen):
    """Shows callbacks what the launcher reads of a run; prints only what went wrong."""

    def __init__(self, watchers: Callbacks) -> None:
        super().__init__(plain=True, quiet=True)
        self._watchers = watchers
        self._trained: list[Event] = []  # of the round that is being read
        self.error: UserError | None = None

    def print(self, line: str, style: str = "") -> None:
        """Print what the launcher says of its ending."""
        print(f"llm-qfl: {line}", file=sys.stderr)

    def client(self, line: str) -> None:
        """Show nothing of the clients' own lines: they are in the log."""

    def tick(self, *, started: bool, here: bool) -> None:
        """Show no status: there is a bar."""

    def event(self, event: Event) -> None:
        """Hand an event on, and stop the run if a callback says so.

        Raises
        ------
        Interrupted
            As Ctrl-C does: the launcher ends what it has started.
        """
        kind = event.get("event")
        if self._watchers.reason or self.error:
            return  # it is being stopped
        if kind == "client":
            self._trained.append(event)
        elif kind in ("prepared", "resumed", "round"):
            trained, self._trained = self._trained, []
            try:
                self._watchers.watch({**event, "clients": trained} if kind == "round" else event)
            except UserError as error:
                self.error = error
            if self._watchers.reason or self.error:
                raise Interrupted


def launched_run(
    config: Any,
    on: Folder | None,
    resume: Folder | None,
    callbacks: Any,
    quiet: bool | None,
    overrides: Mapping[str, Any],
) -> Result:
    """Run a federation in other processes; parameters and errors are those of `llm_qfl.run`."""
    facts = None if on is None else deployment(Path(on).expanduser())
    plan = _plan(config, facts, resume, overrides)
    run = plan.settings.run
    watchers = Callbacks(callbacks, Progress(quiet, run.name, run.rounds))
    try:
        preflight(plan, here=facts is None, dry=False)
        watchers.folder = folder = make_run_folder(plan)
        screen = _Watched(watchers)
        main = threading.current_thread() is threading.main_thread()  # others get no signals
        try:
            with watchers.progress, signals() if main else nullcontext():
                outcome = launch(plan, folder, screen, facts)
        except Interrupted:
            raise KeyboardInterrupt from None
        if screen.error is not None:
            raise screen.error
        if outcome.code == INTERRUPTED and not watchers.reason:
            watchers.interrupted()
            raise KeyboardInterrupt
        if outcome.code not in (COMPLETED, INTERRUPTED):
            raise UserError(f"{outcome.line} (logs: {folder / 'logs'})")
        if not (folder / "config.json").exists():
            raise UserError(f"the run wrote nothing (logs: {folder / 'logs'})")
    except LaunchError as error:
        raise UserError(str(error)) from None
    finally:
        watchers.end()
    return Result(folder)


def _plan(
    config: Any, facts: Facts | None, resume: Folder | None, overrides: Mapping[str, Any]
) -> Plan:
    """Work out what to start, from a configuration or from a run that goes on."""
    nodes = None if facts is None else facts.nodes
    if resume is not None:
        plan = resumed_plan(Path(resume), changes(config, Path(resume), overrides), nodes)
        _refuse_objects(plan.settings)
        return plan
    there = {} if nodes is None else {"run.clients": nodes}
    settings = new_settings(config, overrides, there)
    _refuse_objects(settings)
    now, default = flatten(settings), flatten(Settings())
    given = [f"{key}={toml_value(now[key])}" for key in now if now[key] != default[key]]
    return make_plan([], given, None, nodes)


def _refuse_objects(settings: Settings) -> None:
    """Refuse extensions that only this process knows.

    Raises
    ------
    SettingsError
        With the first one.
    """
    flat = flatten(settings)
    for point in POINTS.values():
        name = str(flat[point.setting])
        if registered(point.name, name) is not None:
            raise SettingsError(
                f"{point.setting} = {name!r}, an object of this process, in other processes",
                "module:attribute of a file in this folder, or a name that ships",
                f"put it into a file, or leave runtime and on out; {point.name}= takes the class",
            )
