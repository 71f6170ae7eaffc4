"""The ServerApp that Flower starts."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from logging import ERROR, INFO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from core import (
    Settings,
    SettingsError,
    UserError,
    new_run_folder,
    parse_settings,
    unexpected_error,
    with_run_name,
)
from core.extras import check_extras
from core.storage.checkpoints import alone

if TYPE_CHECKING:
    from strategies.context import Watch
    from strategies.journal import RunJournal

app = ServerApp()

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What the system says when a disk takes nothing more."""


class RunFailedError(RuntimeError):
    """Tells Flower that the run failed; the reason has been logged and written down."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Drive one federated run; Flower counts it as failed if this raises."""
    from strategies.deadlines import DeadlineGrid

    threading.Thread(target=_import_early, daemon=True).start()
    nodes = DeadlineGrid(grid)
    try:
        settings = with_run_name(parse_settings(context.run_config))
        check_extras(settings)
        drive(nodes, settings, results_folder(settings), str(context.run_id))
    except UserError as error:
        log(ERROR, "%s", error)
        raise RunFailedError(str(error)) from None
    finally:
        nodes.close()


def _import_early() -> None:
    """Import what the server needs once the sites have answered, while it waits for them."""
    for library in ("torch", "pennylane", "matplotlib.figure"):
        with suppress(Exception):  # who needs it reports that
            import_module(library)


def results_folder(settings: Settings) -> Path:
    """Return the folder that a run writes to; made, if the settings name none.

    Raises
    ------
    SettingsError
        If it cannot be made, or holds a run: two runs' lines would mix.
    """
    if not settings.run.folder:
        return new_run_folder(Path(settings.run.output), settings.run.name)
    folder = Path(settings.run.folder)
    if not settings.run.resume and (folder / "metrics.jsonl").exists():
        raise SettingsError(
            f"run.folder = {str(folder)!r} holds a run", "a new folder", "name another"
        )
    return folder


def drive(
    grid: Grid, settings: Settings, folder: Path, run_id: str = "", watch: Watch | None = None
) -> None:
    """Run, or go on with the run in the folder, write down how it ended, and make the report.

    Parameters
    ----------
    grid : Grid
        The connection to the nodes.
    settings : Settings
        The run's settings.
    folder : Path
        Where it writes; nobody else may do so meanwhile.
    run_id : str
        Flower's id of the run.
    watch : callable, optional
        Sees the run's events, and may end it (`strategies.context.Watch`).

    Raises
    ------
    UserError
        If the folder holds no run that could go on: it is left as it was. Or if the run failed
        for a reason that its user can correct; ``summary.json`` and the last event say so too.
    """
    with alone(folder):
        _drive(grid, settings, folder, run_id, watch)


def _drive(grid: Grid, settings: Settings, folder: Path, run_id: str, watch: Watch | None) -> None:
    from reporting.trackers import tracked
    from server_app.resume import load_history
    from server_app.run import run
    from strategies.context import unwatched
    from strategies.journal import RunJournal

    began = time.monotonic()
    history = load_history(folder, settings) if settings.run.resume else None
    journal = RunJournal(folder)
    if history is None:
        journal.begin(settings)
    else:
        journal.resumed(settings, history.number)
    log(INFO, "results: %s", folder)
    with tracked(settings, folder) as listener:
        journal.listeners.append(listener)
        given = grid, settings, journal, run_id
        begin = partial(run, *given, history=history, watch=watch or unwatched)
        _finish(begin, settings, journal, began)


def _finish(
    run: Callable[[], dict[str, Any]], settings: Settings, journal: RunJournal, began: float
) -> None:
    """Run, and write down how it ended; `began` is when."""
    folder = journal.folder
    try:
        summary = run()
    except Exception as error:
        known, text = _why(error, folder)
        _write_failure(journal, text, time.monotonic() - began)
        _report(settings, folder)
        if known is None:
            log(ERROR, "%s", text)
            raise
        raise known from None
    summary["seconds"]["report"] = _report(settings, folder)
    journal.summary(summary)
    journal.event(
        {
            "event": "end",
            "status": "completed",
            "rounds": summary["rounds"],
            "stop_reason": summary["stop_reason"],
            "seconds": time.monotonic() - began,
            "error": "",
        }
    )
    log(INFO, "done: %s; results: %s", summary["stop_reason"], folder)


def _why(error: Exception, folder: Path) -> tuple[UserError | None, str]:
    """Say why a run failed; with an error for its user where he can correct it."""
    if isinstance(error, UserError):
        return error, str(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        full = UserError(
            f"{str(folder)!r} cannot be written: {error.strerror}",
            "a disk with room",
            f"make room, then go on: llm-qfl run --resume {folder}",
        )
        return full, str(full)
    return None, unexpected_error(error)


def _write_failure(journal: RunJournal, text: str, seconds: float) -> None:
    """Write down why a run failed, as far as the disk lets us: the reason must not be lost."""
    try:
        journal.summary({"status": "failed", "error": text})
        journal.event({"event": "end", "status": "failed", "error": text, "seconds": seconds})
    except OSError as error:
        log(ERROR, "that could not be written down: %s", error)


def _report(settings: Settings, folder: Path) -> float:
    """Write ``report.html`` if wanted; return the seconds it took."""
    began = time.monotonic()
    if settings.run.report:
        from reporting import write_report

        try:
            write_report(folder)
        except Exception as error:  # the numbers are safe on disk: a chart must not fail a run
            log(ERROR, "report.html could not be written: %s", error)
    return time.monotonic() - began
