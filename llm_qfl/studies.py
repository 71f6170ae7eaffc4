"""`llm_qfl.study`: a grid of settings and seeds, a run each, and one tidy table."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import operator
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import Settings, SettingsError, UserError, flatten
from core.own_code import source_digest
from core.registry import POINTS, registered
from llm_qfl.callbacks import Progress
from llm_qfl.configuration import Folder, configure
from llm_qfl.result import Result
from llm_qfl.runs import run

if TYPE_CHECKING:
    from pandas import DataFrame

FIGURES = ("accuracy", "loss", "circuits", "seconds")
PLACES = ("run.name", "run.output", "run.folder", "run.report")
"""Settings that change no figure."""

RESAMPLES = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True)
class Study:
    """The runs of a study.

    Attributes
    ----------
    varied : tuple of str
        The grid's keys.
    table : DataFrame
        One row a run: the varied settings, ``seed``, ``accuracy`` and ``loss`` (nats) on the test
        rows, ``circuits``, wall ``seconds``, ``status``, ``error``, and its ``folder``.
    reference : tuple
        The varied settings of the cell that the others are compared with.
    """

    varied: tuple[str, ...]
    table: DataFrame
    reference: tuple[Any, ...]

    @functools.cached_property
    def summary(self) -> DataFrame:
        """One row a cell, in the grid's order.

        ``runs`` that completed; mean and ``_sd`` (sample standard deviation over seeds) of
        accuracy, loss, circuits and seconds; ``accuracy_gain``, the mean difference from the
        reference over the seeds that both have, and its 95 % bootstrap interval
        ``gain_low``, ``gain_high``: missing with fewer than two such seeds.
        """
        from pandas import DataFrame

        done = self.table[self.table["status"] == "completed"]
        keys = list(self.varied)
        cells = list(dict.fromkeys(self.table[keys].itertuples(index=False, name=None)))
        of = {
            cell: done[(done[keys] == list(cell)).all(axis=1)].set_index("seed") for cell in cells
        }
        rows = []
        for cell in cells:
            mean, sd = of[cell][list(FIGURES)].mean(), of[cell][list(FIGURES)].std()
            figures = {
                name: part
                for key in FIGURES
                for name, part in ((key, mean[key]), (f"{key}_sd", sd[key]))
            }
            gains = (of[cell]["accuracy"] - of[self.reference]["accuracy"]).dropna().to_numpy()
            low, high = bootstrap(gains)
            gain = {"accuracy_gain": gains.mean() if len(gains) else float("nan")}
            gain |= {"gain_low": low, "gain_high": high}
            rows.append(
                dict(zip(keys, cell, strict=True)) | {"runs": len(of[cell])} | figures | gain
            )
        return DataFrame(rows)

    def _repr_html_(self) -> str:
        return str(self.summary.to_html(index=False))


def bootstrap(values: Any) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean; NaN of fewer than two values.

    Parameters
    ----------
    values : array, (n,)
        Paired differences. The resamples are the same at every call.
    """
    import numpy as np

    if len(values) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def study(
    config: Any = None,
    *,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] = (0,),
    reference: Any = None,
    folder: Folder = "runs/study",
    callbacks: Any = None,
    quiet: bool | None = None,
    **overrides: Any,
) -> Study:
    """Run every combination of the grid's values with every seed, one after the other.

    A run that is complete in `folder` is not repeated: it is found by its settings and the source
    of the files of one's own. One that failed is a row with its error, and is tried again by the
    next call. An object that no file defines is run every time.

    Parameters
    ----------
    config, callbacks, quiet, **overrides
        As for `llm_qfl.run`.
    grid : Mapping
        Keys as keywords of `llm_qfl.run`, each with its values: names, numbers or objects.
    seeds : sequence of int
        The same for every cell: they see the same rows and first parameters, so differences
        are paired.
    reference : Any, optional
        The cell to compare with: its values in the grid's order, or the value where one key
        varies; by itself the first.
    folder : str or Path
        Where the runs' folders go.

    Raises
    ------
    UserError
        One line, for a mistake in any cell's settings, before the first run.

    Examples
    --------
    >>> found = llm_qfl.study("demo", grid={"agent": ["all", "bandit"]}, seeds=range(3))
    ... # doctest: +SKIP
    >>> found.summary  # doctest: +SKIP
    """
    for key, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise SettingsError(f"grid[{key!r}] = {values!r}", "a list of values", "give one")
    try:
        seeds = [operator.index(seed) for seed in seeds]
    except TypeError:
        raise SettingsError(f"seeds = {seeds!r}", "a list of whole numbers", "give one") from None
    if not seeds:
        raise SettingsError("seeds = []", "a list of whole numbers", "give one")
    cells = list(_cells(config, grid, overrides))
    names = [names for names, _ in cells]
    repeated = [cell for cell in names if names.count(cell) > 1]
    if repeated:
        raise SettingsError(f"the cell {repeated[0]} twice", "each once", "remove one")
    wanted = tuple(reference) if isinstance(reference, list | tuple) else (reference,)
    wanted = names[0] if reference is None else wanted
    if wanted not in names:
        shown = ", ".join(map(str, names))
        raise SettingsError(f"reference = {reference!r}", shown, "name a cell of the grid")
    rows, progress = [], Progress(quiet, "study", len(cells) * len(seeds))
    with progress:
        for cell, settings in cells:
            for seed in seeds:
                one = settings.model_copy(
                    update={"run": settings.run.model_copy(update={"seed": seed})}
                )
                row = _run_cell(one, cell, Path(folder), callbacks)
                rows.append({**dict(zip(grid, cell, strict=True)), "seed": seed, **row})
                progress.show(len(rows), f"{cell}, seed {seed}: {row['status']}")
    from pandas import DataFrame

    return Study(tuple(grid), DataFrame(rows), wanted)


def _cells(
    config: Any, grid: Mapping[str, Sequence[Any]], overrides: Mapping[str, Any]
) -> Iterator[tuple[tuple[Any, ...], Settings]]:
    """Yield each cell's values, names in place of objects, and its settings."""
    from llm_qfl.configuration import dotted_key

    for values in itertools.product(*grid.values()):
        settings = configure(config, {**overrides, **dict(zip(grid, values, strict=True))}).settings
        flat: Mapping[str, Any] = flatten(settings)
        yield tuple(flat[dotted_key(key)] for key in grid), settings


def _run_cell(
    settings: Settings, cell: tuple[Any, ...], output: Path, callbacks: Any
) -> dict[str, Any]:
    """Run a cell with a seed, or read the run that it was; return its figures."""
    label = re.sub(r"[^\w.]+", "-", "-".join(map(str, cell)), flags=re.ASCII).strip("-")[:60]
    name = f"{label}-seed-{settings.run.seed}-{_digest(settings)}"
    attempts = [output / name, *(output / f"{name}-{k}" for k in range(2, 1000))]
    for folder in attempts:
        if not (folder / "config.json").exists():
            break
        result = Result(folder)
        if result.status == "completed":
            return _figures(result)
    place = settings.run.model_copy(update={"folder": str(folder), "name": label or "study"})
    try:
        whole = settings.model_copy(update={"run": place})
        return _figures(run(whole, callbacks=callbacks, quiet=True))
    except UserError as error:
        return {
            **dict.fromkeys(FIGURES, float("nan")),
            "status": "failed",
            "error": str(error),
            "folder": str(folder),
        }


def _figures(result: Result) -> dict[str, Any]:
    """Return a run's figures of the table."""
    summary = result.summary
    test, spent = summary.get("test") or {}, summary.get("ledger") or {}
    return {
        "accuracy": test.get("accuracy"),
        "loss": test.get("loss"),
        "circuits": spent.get("circuits"),
        "seconds": (summary.get("seconds") or {}).get("total"),
        "status": result.status,
        "error": "",
        "folder": str(result.folder),
    }


def _digest(settings: Settings) -> str:
    """Return what tells a run's figures from others': settings, and source of the user's own."""
    flat: Mapping[str, Any] = flatten(settings)
    parts: dict[str, Any] = {key: flat[key] for key in flat if key not in PLACES}
    for point in POINTS.values():
        name = str(flat[point.setting])
        if registered(point.name, name) is not None:  # nothing says what it was in another process
            parts[point.name] = secrets.token_hex(8)
        elif ":" in name:
            parts[point.name] = source_digest(point.name, name)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
