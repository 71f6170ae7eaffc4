"""What a study's runs come to: means over seeds, paired differences, and the cost of a target.

Differences are paired by seed. Their intervals are percentile bootstraps of the mean; their p the
sign-flip test's, which needs no distribution and is exact: under the null hypothesis a difference
is as likely as its negative. With n seeds it cannot be below 2 / 2^n. Holm's correction is over
the cells of one score; it needs no independence, which cells that share a reference do not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reporting.study_record import COSTS, SCORES, StudyRecord

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RESAMPLES = 10_000
"""Of bootstraps, and the most sign flips that are tried one by one."""

NAN = math.nan


def interval(values: Any) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean; NaN of fewer than two values.

    Parameters
    ----------
    values : array, (n,)
        Differences. The resamples are the same at every call.
    """
    from scipy.stats import bootstrap

    if len(values) < 2:
        return NAN, NAN
    found = bootstrap(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def sign_flip(values: Any) -> float:
    """Return the two-sided p of the sign-flip test that a mean is 0; NaN of fewer than two values.

    Parameters
    ----------
    values : array, (n,)
        Differences. Exact up to 13 of them.
    """
    from scipy.stats import permutation_test

    if len(values) < 2:
        return NAN
    found = permutation_test(
        (np.asarray(values, float),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p; NaN stays NaN, and does not count.

    Parameters
    ----------
    values : sequence of float
        One p a comparison.
    """
    known = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    adjusted, largest = [NAN] * len(values), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def summarise(record: StudyRecord) -> DataFrame:
    """Return one row a cell, in the study's order.

    Returns
    -------
    DataFrame
        The axes' values; ``runs`` that completed, and those that ``failed`` or are ``missing``;
        of each score and figure its mean and ``_sd`` (sample standard deviation over seeds);
        ``_gain``, the mean difference from the reference over the seeds that both have, with its
        interval ``_gain_low``, ``_gain_high``, its ``_p`` and ``_holm``, all missing in the
        reference; and the mean and ``_sd`` of each cost.
    """
    from pandas import DataFrame

    scores = [*SCORES, "validation_loss", *record.figures]
    of = _by_cell(record)
    rows = []
    for cell, runs in of.items():
        done = runs[runs["status"] == "completed"]
        row: dict[str, Any] = dict(zip(record.axes, cell, strict=True))
        row |= {"runs": len(done), "failed": int((runs["status"] == "failed").sum())}
        row |= {"missing": len(runs) - row["runs"] - row["failed"]}
        other = record.reference_of(cell)
        for key in scores:
            row |= {key: done[key].mean(), f"{key}_sd": done[key].std()}
            gains = _gains(done[key], of.get(other), key) if other != cell else []
            row |= _gain(key, gains)
        for key in (*COSTS, "wall_seconds"):
            row |= {key: done[key].mean(), f"{key}_sd": done[key].std()}
        rows.append(row)
    summary = DataFrame(rows)
    for key in scores:
        place = summary.columns.get_loc(f"{key}_p")
        summary.insert(place + 1, f"{key}_holm", holm(list(summary[f"{key}_p"])))
    return summary


def _by_cell(record: StudyRecord) -> dict[tuple[Any, ...], DataFrame]:
    """Return each cell's runs, by seed."""
    axes = list(record.axes)
    rows = record.table[axes].itertuples(index=False, name=None)
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, cell in enumerate(rows):
        places.setdefault(cell, []).append(place)
    return {cell: record.table.iloc[at].set_index("seed") for cell, at in places.items()}


def _gains(values: Series, others: DataFrame | None, key: str) -> Any:
    """Return differences of the seeds that both have."""
    if others is None:
        return []
    done = others.loc[others["status"] == "completed", key]
    return (values - done).dropna().to_numpy()


def _gain(key: str, gains: Any) -> dict[str, float]:
    low, high = interval(gains)
    mean = float(np.mean(gains)) if len(gains) else NAN
    found = {"gain": mean, "gain_low": low, "gain_high": high, "p": sign_flip(gains)}
    return {f"{key}_{name}": value for name, value in found.items()}


def costs(record: StudyRecord) -> DataFrame:
    """Return one row a cell and cost, of the runs until they reach the target.

    A run that never reaches it counts with all that it paid, less than what the target would cost.

    Returns
    -------
    DataFrame
        The axes' values, ``cost``; ``reached`` and ``runs``, how many of how many; ``mean``,
        ``mark`` (``>=`` where some did not reach it, so that the true mean is above) and ``sd``;
        ``median`` by Kaplan and Meier, missing where fewer than half got there; ``saved``: the
        share of the reference's sum over the seeds that both have, with its bootstrap interval
        ``saved_low``, ``saved_high`` and ``saved_mark``: ``<=`` where some runs of this cell,
        ``>=`` where some of the reference's, ``~`` where some of both did not get there; ``wins``
        of ``pairs``: seeds in which it got there for less, or alone. Empty without a target.
    """
    from pandas import DataFrame

    columns = [*record.axes, "cost", "reached", "runs", "mean", "mark", "sd", "median"]
    columns += ["saved", "saved_low", "saved_high", "saved_mark", "wins", "pairs"]
    of = {cell: runs[runs["reached"].notna()] for cell, runs in _by_cell(record).items()}
    rows = []
    for cell, runs in of.items():
        if not len(runs):
            continue
        other = record.reference_of(cell)
        for cost in COSTS:
            paid = runs[f"{cost}_to_target"]
            there = runs["reached"].astype(bool)
            row: dict[str, Any] = dict(zip(record.axes, cell, strict=True))
            row |= {"cost": cost, "reached": int(there.sum()), "runs": len(runs)}
            row |= {"mean": paid.mean(), "mark": "" if there.all() else ">=", "sd": paid.std()}
            row |= {"median": median(paid.to_numpy(), there.to_numpy())}
            if other != cell and other in of:
                row |= saving(runs, of[other], cost)
            rows.append(row)
    return DataFrame(rows, columns=columns)


def median(paid: Any, reached: Any) -> float:
    """Return the median cost of reaching the target, by Kaplan and Meier; NaN: above all of them.

    Parameters
    ----------
    paid : array, (n,)
        What each run paid until it was there, or in all.
    reached : array of bool, (n,)
        Whether it got there.
    """
    from scipy.stats import CensoredData, ecdf

    known = np.isfinite(paid)
    paid, reached = paid[known], reached[known]
    if not reached.any():
        return NAN
    alive = ecdf(CensoredData(uncensored=paid[reached], right=paid[~reached])).sf
    below = alive.quantiles[alive.probabilities <= 0.5 + 1e-12]
    return float(below[0]) if len(below) else NAN


def saving(runs: DataFrame, others: DataFrame, cost: str) -> dict[str, Any]:
    """Return what runs paid less than the reference's of the same seeds; columns of `costs`."""
    key = f"{cost}_to_target"
    theirs = others[[key, "reached"]].add_suffix("_other")
    pairs = runs[[key, "reached"]].join(theirs, how="inner").dropna()
    mine, theirs = (pairs[name].to_numpy(float) for name in (key, f"{key}_other"))
    there, other = (pairs[name].to_numpy(bool) for name in ("reached", "reached_other"))
    if not len(pairs) or not theirs.sum():
        return {"wins": 0, "pairs": len(pairs)}
    drawn = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    sums = theirs[drawn].sum(axis=1)
    shares = 1 - mine[drawn].sum(axis=1) / np.where(sums > 0, sums, np.nan)
    low, high = np.nanquantile(shares, (0.025, 0.975)) if len(pairs) > 1 else (NAN, NAN)
    sides = bool(there.all()), bool(other.all())
    marks: Mapping[Any, str] = {(False, True): "<=", (True, False): ">=", (False, False): "~"}
    return {
        "saved": float(1 - mine.sum() / theirs.sum()),
        "saved_low": float(low),
        "saved_high": float(high),
        "saved_mark": marks.get(sides, ""),
        "wins": int((there & (~other | (mine < theirs))).sum()),
        "pairs": len(pairs),
    }
