"""The ServerApp that Flower starts."""

from __future__ import annotations

import errno
import time
from logging import ERROR, INFO
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from core import (
    Settings,
    SettingsError,
    UserError,
    explain,
    new_run_folder,
    parse_settings,
    unexpected_error,
    with_run_name,
)
from core.extras import check_extras
from core.storage.checkpoints import alone

if TYPE_CHECKING:
    from server_app.resume import RunHistory
    from strategies.journal import RunJournal

app = ServerApp()

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What the system says when a disk takes nothing more."""


class RunFailedError(RuntimeError):
    """Tells Flower that the run failed; the reason has been logged and written down."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Drive one federated run; Flower counts it as failed if this raises."""
    try:
        settings = with_run_name(parse_settings(context.run_config))
        check_extras(settings)
        folder = (
            Path(settings.run.folder)
            if settings.run.folder
            else new_run_folder(Path(settings.run.output), settings.run.name)
        )
        if not settings.run.resume:
            _refuse_used(folder)
    except UserError as error:
        log(ERROR, "%s", error)
        raise RunFailedError(str(error)) from None
    from strategies.deadlines import DeadlineGrid

    nodes = DeadlineGrid(grid)
    try:
        with alone(folder):
            drive(nodes, settings, folder, str(context.run_id))
    except UserError as error:
        log(ERROR, "%s", error)
        raise RunFailedError(str(error)) from None
    finally:
        nodes.close()


def _refuse_used(folder: Path) -> None:
    """Refuse a folder that holds a run: two runs' lines would mix."""
    if (folder / "metrics.jsonl").exists():
        raise SettingsError(
            f"run.folder = {str(folder)!r} holds a run", "a new folder", "name another"
        )


def drive(grid: Grid, settings: Settings, folder: Path, run_id: str = "") -> None:
    """Run, or go on with the run in the folder, write down how it ended, and make the report.

    Raises
    ------
    UserError
        If the folder holds no run that could go on; it is left as it was.
    RunFailedError
        If the run did not complete. ``summary.json`` and the last event say why.
    """
    from reporting.trackers import tracked
    from server_app.resume import load_history
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
        _finish(grid, settings, journal, run_id, history, began)


def _finish(
    grid: Grid,
    settings: Settings,
    journal: RunJournal,
    run_id: str,
    history: RunHistory | None,
    began: float,
) -> None:
    """Run, and write down how it ended; `began` is when."""
    from server_app.run import run

    folder = journal.folder
    try:
        summary = run(grid, settings, journal, run_id, history=history)
    except Exception as error:
        known, text = _why(error, folder)
        log(ERROR, "%s", text)
        _write_failure(journal, text, time.monotonic() - began)
        _report(settings, folder)
        if known:
            raise RunFailedError(text) from None
        raise
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


def _why(error: Exception, folder: Path) -> tuple[bool, str]:
    """Say why a run failed, and whether that is a sentence for its user."""
    if isinstance(error, UserError):
        return True, str(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        what = explain(
            f"{str(folder)!r} cannot be written: {error.strerror}",
            "a disk with room",
            f"make room, then go on: llm-qfl run --resume {folder}",
        )
        return True, what
    return False, unexpected_error(error)


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
