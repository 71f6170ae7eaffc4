"""Runs what is missing of a study, and keeps account of it in ``study.json``."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import Settings, UserError, explain, flatten, read_json, write_json
from core.own_code import source_digest
from core.registry import POINTS, registered
from core.storage.files import file_lock
from llm_qfl.callbacks import Progress
from llm_qfl.studies.plan import PLACES, Cell, Plan, axes_of
from llm_qfl.studies.workers import Pool, Task, find_runner, run_task
from reporting.study_record import final_accuracy

MOST_ATTEMPTS = 1000


@dataclass
class Run:
    """One cell with one seed, and how far it is.

    Attributes
    ----------
    target : float or None
        Validation accuracy whose cost is compared.
    folder : str
        Name of its folder; empty before it is known.
    status : str
        ``waiting``, ``completed`` or ``failed``.
    """

    cell: Cell
    seed: int
    target: float | None = None
    folder: str = ""
    status: str = "waiting"
    error: str = ""


class Conductor:
    """Runs a plan.

    Parameters
    ----------
    plan : Plan
        The study.
    jobs : int
        Runs side by side.
    callbacks, quiet
        As for `llm_qfl.run`.
    facts : Mapping
        What ``study.json`` says besides.
    """

    def __init__(
        self, plan: Plan, jobs: int, callbacks: Any, quiet: bool | None, facts: Mapping[str, Any]
    ) -> None:
        self.plan, self.jobs, self.callbacks, self.facts = plan, jobs, callbacks, dict(facts)
        self.runs: list[Run] = []
        self.add(plan.cells)
        self.progress = Progress(quiet, "study", len(self.runs))
        self.runner = source_digest_of(plan.runner)

    def add(self, cells: Sequence[Cell]) -> list[Run]:
        """Take more cells in, as a search finds them; return their runs."""
        runs = [Run(cell, seed) for cell in cells for seed in self.plan.seeds]
        self.runs += runs
        return runs

    def check(self) -> None:
        """Check every cell that has something to run, as a run does before it starts.

        Raises
        ------
        UserError
            One line, for the first cell that could not run.
        """
        preflight([run.cell for run in self.runs if self._task(run, aimed=False) is not None])
        for run in self.runs:
            run.status, run.folder = "waiting", ""

    def conduct(self) -> None:
        """Run what is missing; of an interrupted study what is left."""
        references = [run for run in self.runs if self.plan.is_reference(run.cell)]
        others = [run for run in self.runs if run not in references]
        by_reference = self.plan.target == "reference"
        if not by_reference:
            for run in self.runs:
                run.target = self.plan.target  # type: ignore[assignment]
        self.write()
        with self.progress, Pool(self.jobs, self.plan.folder / "workers.log") as pool:
            if by_reference and self.plan.runner:  # who runs the others learns it
                self.run(pool, references, aimed=False)
                self._aim(references)
                self.run(pool, others, aimed=True)
            else:
                self.run(pool, self.runs, aimed=True)
                if by_reference:
                    self._aim(references)
            self.write()

    def run(self, pool: Pool, runs: Sequence[Run], *, aimed: bool) -> None:
        """Run what is missing of some; `aimed`: the runner learns the target."""
        tasks: list[tuple[Run, Task]] = []
        for run in runs:
            task = self._task(run, aimed=aimed) if run.status == "waiting" else None
            if task is not None:
                tasks.append((run, task))
        self._show()
        away = [pair for pair in tasks if self._travels(pair[0].cell.settings)]
        if self.jobs == 1 or len(away) < 2:
            away = []
        here = [pair for pair in tasks if pair not in away]
        if self.jobs > 1 and len(here) > 1:
            why = "callbacks" if self.callbacks else "objects that no file defines"
            line = f"{len(here)} of {len(tasks)} runs have {why}: one after the other, in this"
            print(f"llm-qfl: {line} process", file=sys.stderr)
        pool.run([task for _, task in away], lambda k, error: self._ended(away[k][0], error))
        for run, task in here:
            self._ended(run, run_task(task, self.callbacks))

    def _task(self, run: Run, *, aimed: bool) -> Task | None:
        """Return what a run needs; None where it is complete already."""
        target = run.target if aimed and self.plan.runner else None
        settings = _with(run.cell.settings, seed=run.seed)
        label = re.sub(r"[^\w.]+", "-", str(run.cell), flags=re.ASCII).strip("-.")[:60]
        label = label if label[:1].isalnum() else f"cell-{label}"
        name = f"{label}-seed-{run.seed}-{digest(settings, self.runner, target)}"
        for attempt in range(1, MOST_ATTEMPTS):
            run.folder = name if attempt == 1 else f"{name}-{attempt}"
            folder = self.plan.folder / run.folder
            if not (folder / "config.json").exists():
                break
            if read_json(folder / "summary.json").get("status") == "completed":
                run.status = "completed"
                return None
        place = str(self.plan.folder / run.folder)
        whole = _with(settings, folder=place, name=label, report=False)  # the study has a page
        return Task.of(whole, self.plan.runner, target)

    def _travels(self, settings: Settings) -> bool:
        """Whether another process can run a cell: it has neither our objects nor callbacks."""
        flat: Mapping[str, Any] = flatten(settings)
        own = [registered(point.name, str(flat[point.setting])) for point in POINTS.values()]
        return not self.callbacks and all(one is None for one in own)

    def _ended(self, run: Run, error: str) -> None:
        summary = read_json(self.plan.folder / run.folder / "summary.json")
        if not error and summary.get("status") != "completed":
            error = str(summary.get("error") or "it left no summary.json that is completed")
        run.status, run.error = ("failed", error) if error else ("completed", "")
        self.write()
        self._show(f"{run.cell}, seed {run.seed}: {run.status}")

    def _aim(self, references: Sequence[Run]) -> None:
        """Give every run the target that the reference of its seed sets; without one it fails."""
        ended = {
            (self._compared(run), run.seed): final_accuracy(self.plan.folder / run.folder)
            for run in references
            if run.status == "completed"
        }
        for run in self.runs:
            accuracy = ended.get((self._compared(run), run.seed))
            if accuracy is not None:
                run.target = accuracy - self.plan.margin
            elif run.status == "waiting":
                run.status = "failed"
                run.error = "the reference of this seed has failed, so there is no target"

    def _compared(self, run: Run) -> tuple[Any, ...]:
        return tuple({**run.cell.values, **self.plan.reference}.values())

    def close(self) -> None:
        """Write the tables and the page of what is there, also after Ctrl-C."""
        from reporting.study_page import write_study

        if (self.plan.folder / "study.json").exists():
            write_study(self.plan.folder)

    def _show(self, text: str = "") -> None:
        done = sum(run.status != "waiting" for run in self.runs)
        self.progress.show(done, text or f"{done} of {len(self.runs)} runs are there")

    def write(self) -> None:
        """Write ``study.json``."""
        plan = self.plan
        runs = [
            {
                "cell": dict(run.cell.values),
                "seed": run.seed,
                "target": run.target,
                "folder": run.folder,
                "status": run.status,
                "error": run.error,
            }
            for run in self.runs
        ]
        facts = {
            "axes": axes_of([run.cell for run in self.runs]),
            "seeds": list(plan.seeds),
            "reference": dict(plan.reference),
            "target": plan.target,
            "margin": plan.margin,
            "figures": list(plan.figures),
            "runner": plan.runner,
            **self.facts,
        }
        write_json(plan.folder / "study.json", {**facts, "runs": runs})


def _with(settings: Settings, **own: Any) -> Settings:
    """Return settings with other values in the section ``run``."""
    return settings.model_copy(update={"run": settings.run.model_copy(update=own)})


def digest(settings: Settings, runner: str, target: float | None) -> str:
    """Return what tells a run's figures from others'.

    Its settings, the source of the user's own files, the runner and what it is aimed at, and the
    version of this package.
    """
    from llm_qfl.cli.app import version

    flat: Mapping[str, Any] = flatten(settings)
    parts: dict[str, Any] = {key: flat[key] for key in flat if key not in PLACES}
    parts["llm-qfl"] = version()
    for point in POINTS.values():
        name = str(flat[point.setting])
        if registered(point.name, name) is not None:  # nothing says what it was in another process
            parts[point.name] = secrets.token_hex(8)
        elif ":" in name:
            parts[point.name] = source_digest(point.name, name)
    if runner:
        parts |= {"runner": runner, "target": target}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def source_digest_of(runner: str) -> str:
    """Return a runner's name with its file's digest; empty for none."""
    if not runner:
        return ""
    module = sys.modules[find_runner(runner).__module__]
    file = getattr(module, "__file__", None)
    return f"{runner} {hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ''}"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a study's folder.

    Raises
    ------
    UserError
        If another process works on it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        given = f"no study can be written to {str(folder)!r}: {error.strerror}"
        raise UserError(given, "a folder that can be written", "name another one") from None
    given = f"a study in {str(folder)!r} is still going on"
    refusal = explain(given, "one at a time", "wait for its end, or name another folder")
    with file_lock(folder / ".lock", refusal):
        yield


def preflight(cells: Sequence[Cell]) -> None:
    """Check each cell, once, whatever its seed.

    Raises
    ------
    UserError
        One line, for the first cell that could not run.
    """
    from server_app.preflight import check

    for cell in {id(cell): cell for cell in cells}.values():
        try:
            check(cell.settings)
        except UserError as error:
            raise type(error)(f"{cell}: {error}") from None
