"""`llm_qfl.study`: a grid of settings and seeds, a run each, and one tidy table."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import SettingsError
from llm_qfl.configuration import Folder, flat_values
from llm_qfl.result import Report
from llm_qfl.studies.file import read_study_file
from llm_qfl.studies.plan import Plan, make_plan
from llm_qfl.studies.running import Conductor, held
from llm_qfl.studies.workers import cores

if TYPE_CHECKING:
    from pandas import DataFrame

    from reporting.study_record import StudyRecord


DEFAULTS: dict[str, Any] = {
    "seeds": (0,),
    "margin": 0.0,
    "figures": (),
    "runner": "",
    "folder": "runs/study",
    "only": (),
}
"""What neither a keyword nor a file says."""


class Study:
    """A study, read from its folder; of an unfinished one what is there.

    Parameters
    ----------
    folder : str or Path
        The study's folder.

    Raises
    ------
    DataError
        If it holds no study.
    """

    def __init__(self, folder: Folder) -> None:
        from reporting.study_record import read_study_record

        self.folder = Path(folder)
        self._record: StudyRecord = read_study_record(self.folder)

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the axes."""
        return self._record.axes

    @property
    def table(self) -> DataFrame:
        """One row a run (`reporting.study_record.StudyRecord` has columns and units)."""
        return self._record.table

    @functools.cached_property
    def summary(self) -> DataFrame:
        """One row a cell: means, differences from the reference with intervals and p.

        `reporting.study_figures.summarise` has the columns.
        """
        from reporting.study_figures import summarise

        return summarise(self._record)

    @functools.cached_property
    def costs(self) -> DataFrame:
        """One row a cell and cost of reaching the target (`reporting.study_figures.costs`)."""
        from reporting.study_figures import costs

        return costs(self._record)

    def report(self) -> Report:
        """Write the tables and ``study.html`` into the folder; a notebook shows the page."""
        from reporting.study_page import write_study

        return Report(write_study(self.folder))

    def __repr__(self) -> str:
        done = int((self.table["status"] == "completed").sum())
        return f"<Study: {done} of {len(self.table)} runs completed; {self.folder}>"

    def _repr_html_(self) -> str:
        keys = [*self.varied, "runs", "failed"]
        keys += [f"{s}{part}" for s in ("accuracy", "loss") for part in ("", "_sd", "_gain")]
        return str(self.summary[keys].to_html(index=False))


def read_study(folder: Folder = "runs/study") -> Study:
    """Read a study from its folder, also one that was interrupted.

    Raises
    ------
    DataError
        If it holds no study.
    """
    return Study(folder)


def study(
    config: Any = None,
    *,
    grid: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | int | None = None,
    reference: Any = None,
    target: float | str | None = None,
    margin: float | None = None,
    figures: Sequence[str] | None = None,
    jobs: int | None = None,
    folder: Folder | None = None,
    runner: Any = None,
    callbacks: Any = None,
    quiet: bool | None = None,
    only: Sequence[tuple[str, str]] = (),
    **overrides: Any,
) -> Study:
    """Run every combination of the grid's values with every seed, side by side.

    A run that is complete in `folder` is not repeated: it is found by its settings and the source
    of the files of one's own. One that failed is a row with its error, and is tried again by the
    next call. Cells with objects that no file defines run in this process, and every time. No
    figure depends on `jobs`.

    Parameters
    ----------
    config, callbacks, quiet, **overrides
        As for `llm_qfl.run`. With callbacks all runs are in this process. Without grid and search
        `config` is a study's file (docs/studies.md), over which keywords win.
    grid : Mapping
        The axes. Either a setting, as a keyword of `llm_qfl.run`, with its values: names, numbers
        or objects. Or a name of one's own with a dict: names, each of a dict of settings.
    search : Mapping
        In the place of `grid`: ``trials``, ``seed`` and ``ranges`` of settings (docs/studies.md).
    seeds : sequence of int, or int
        The same for every cell: they see the same rows and first parameters, so differences
        are paired. A number: 0 to below it. By itself 0.
    reference : Any, optional
        What to compare with: a dict of axes and values (the other axes as in the cell that is
        compared), a value that one axis has, or a value for each axis; by itself the first value
        of the first axis.
    target : float or "reference", optional
        Validation accuracy, mean of three rounds, whose cost is compared. ``"reference"``: what
        the reference of the same seed ends with, less `margin`.
    figures : sequence of str
        More figures of each run, as paths in its ``summary.json``.
    jobs : int, optional
        Runs side by side, each a process with one thread; by itself the processors there are.
    folder : str or Path
        Where tables, page and the runs' folders go; by itself ``runs/study``.
    runner : str or function
        ``module:function`` that runs a cell in the place of `llm_qfl.run` (docs/studies.md).
    only : sequence of (axis, value)
        Leave out other values of these axes, but for the reference's.

    Raises
    ------
    UserError
        One line, for a mistake in any cell's settings, before the first run.
    KeyboardInterrupt
        At Ctrl-C; the same call goes on.

    Examples
    --------
    >>> found = llm_qfl.study("demo", grid={"agent": ["all", "bandit"]}, seeds=range(3))
    ... # doctest: +SKIP
    >>> found.summary  # doctest: +SKIP
    """
    requested: dict[str, Any] = {
        "config": config,
        "seeds": seeds,
        "reference": reference,
        "target": target,
        "margin": margin,
        "figures": figures,
        "runner": runner,
        "folder": folder,
        "grid": grid,
        "search": search,
        "jobs": jobs,
        "only": only or None,
    }
    own = flat_values(overrides)
    if grid is None and search is None:
        requested, own = _with_file(requested, own)
    requested = {k: DEFAULTS.get(k) if v is None else v for k, v in requested.items()}
    search, at_once = requested.pop("search"), _jobs(requested.pop("jobs"))
    if search is not None:
        from llm_qfl.studies.search import find_best

        if requested.pop("grid") is not None:
            raise SettingsError("grid and search", "one of them", "leave one out")
        find_best(search, requested, own, at_once, callbacks, quiet)
    else:
        plan = make_plan(overrides=own, **requested)
        _conduct(plan, Conductor(plan, at_once, callbacks, quiet, {}))
    return Study(requested["folder"])


def _conduct(plan: Plan, conductor: Conductor) -> None:
    """Check all cells, say what is to be known, and run them; tables are written at any end."""
    conductor.check()
    for notice in plan.notices:
        print(f"llm-qfl: {notice}", file=sys.stderr)
    with held(plan.folder):
        try:
            conductor.conduct()
        finally:
            conductor.close()


def _with_file(
    requested: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add what a study's file says; what was given by keyword wins."""
    file = requested["config"]
    if not isinstance(file, str | os.PathLike):
        accepted = "a grid, a search, or a study's file"
        raise SettingsError(f"config = {file!r} without a grid", accepted, "give one")
    filed = read_study_file(Path(file))
    given = {key: value for key, value in requested.items() if value is not None}
    whole = {**requested, "config": None, **filed, **{**given, "config": filed.get("config")}}
    return whole, {**flat_values(whole.pop("set", {})), **own}


def _jobs(jobs: Any) -> int:
    if jobs is None:
        return cores()
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise SettingsError(f"jobs = {jobs!r}", "a whole number from 1", "give one, or leave it")
    return jobs
