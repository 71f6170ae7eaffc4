"""`llm-qfl run --resume`: the plan of a run that goes on, checked before anything is started."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from core import (
    Settings,
    SettingsError,
    UserError,
    alone,
    by_number,
    flatten,
    last_checkpoint,
    may_change,
    no_checkpoint,
    read_json,
    real_path,
    recorded_settings,
    refuse_changes,
    rewind,
    toml_value,
)
from llm_qfl.cli.plan import Plan, make_plan


def resumed_plan(run: Path, assignments: Iterable[str], clients: int | None = None) -> Plan:
    """Check that a run can go on, and return what to start.

    Parameters
    ----------
    run : Path
        Its results folder.
    assignments : iterable of str
        ``key=value`` for what may differ from now on, for instance ``run.rounds``.
    clients : int, optional
        Nodes of the deployment that it is to go on with.

    Returns
    -------
    Plan
        With the run's own settings; its record is cut back to the last checkpoint.

    Raises
    ------
    UserError
        One line: no such run, one that has ended or still goes on, nothing to go on from, or a
        setting that would make another run of it.
    """
    folder = real_path(run)
    before = recorded_settings(folder)
    if read_json(folder / "summary.json").get("status") == "completed":
        raise UserError(
            f"the run in {str(folder)!r} is completed, and its test rows have been used",
            "a run that was interrupted or failed",
            "start a new run",
        )
    given = list(assignments)
    _refuse_own(text.partition("=")[0].strip() for text in given)
    here = f"run.folder={toml_value(str(folder))}"
    plan = make_plan([], [*_own(before), *given, here, "run.resume=true"], None, clients)
    with alone(folder):
        found = last_checkpoint(folder)
        if found is None:
            raise UserError(no_checkpoint(folder))
        refuse_changes(before, plan.settings, found.number)
        rewind(folder, found)
        _put_away_logs(folder / "logs")
    return plan


def _put_away_logs(logs: Path) -> None:
    """Move the logs of the run's earlier part into a folder of their own: ``logs/part-N``."""
    mine = [path for path in logs.glob("*.log") if path.is_file()]
    if mine:
        taken = [number for part in logs.glob("part-*") for _, number in by_number(part)]
        part = logs / f"part-{1 + max(taken, default=0)}"
        part.mkdir()
        for path in mine:
            path.rename(part / path.name)


def _own(before: Settings) -> list[str]:
    """Return what a run set otherwise than the app does, as ``key=value``."""
    default, now = flatten(Settings()), flatten(before)
    return [f"{key}={toml_value(now[key])}" for key in now if now[key] != default[key]]


def _refuse_own(keys: Iterable[str]) -> None:
    """Refuse what may not be set for a run that goes on."""
    for key in keys:
        if key in ("run.folder", "run.resume") or not may_change(key):
            raise SettingsError(
                f"--set {key} with --resume",
                "run.rounds, stop.*, timeouts and budgets",
                f"leave {key} out, or start a new run",
            )
