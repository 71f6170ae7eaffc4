"""What `bench.agent` makes of its runs: means with 95 % intervals, savings, goals met or missed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.tables import head, row

Goal = Literal["end", "target", "free"]
"""What ends a run: all rounds; the target; or the agent."""

Line = Mapping[str, Any]
BySeed = Mapping[int, Line]

PLAIN, OURS = "plain", "regulator"

WINDOW = 3
"""Rounds over which an accuracy is averaged."""

SAVED = {"circuits": 50, "rounds": 30, "idle_seconds": 50, "spend": None, "seconds": None}
"""What is compared with plain QFL, and the per cent that the best agent is to save."""

RESAMPLES = 10_000
"""Of the seeds, for the intervals of savings."""

WITHIN = 0.5
"""Points of test accuracy that it may lose."""

FEWEST = 5
"""Seeds of which a finding is given."""


def smoothed(accuracies: Sequence[float]) -> float | None:
    """Return the mean accuracy of the last rounds; None before there are so many."""
    return statistics.fmean(accuracies[-WINDOW:]) if len(accuracies) >= WINDOW else None


def interval(values: Sequence[float]) -> float:
    """Return half the width of the mean's 95 % interval, by Student's t; 0 of one value."""
    if len(values) < 2:
        return 0.0
    from scipy.stats import t

    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(t.ppf(0.975, len(values) - 1)) * error


def spread(values: Sequence[float], form: str = ".1f", mark: str = "") -> str:
    """Return ``mean ± half the interval``; of one value that alone; ``-`` of none."""
    if not values:
        return "-"
    text = f"{mark}{statistics.fmean(values):{form}}"
    if len(values) < 2:
        return text
    return f"{text} ± {interval(values):{form.replace('+', '')}}"


def missed(line: Line) -> bool:
    """Say whether a run had a target and never reached it."""
    return line["target"] is not None and not line["reached"]


def some_missed(runs: BySeed) -> bool:
    """Say whether a run of these never reached its target: its costs are lower bounds."""
    return any(map(missed, runs.values()))


@dataclass(frozen=True)
class Saving:
    """What runs spent less than others of the same seeds.

    Attributes
    ----------
    total : float
        Per cent of the sum over the seeds: of a mean over seeds, the one where little is to be
        saved would be most of it.
    low, high : float
        Its 95 % interval, by resampling the seeds.
    wins, seeds : int
        Seeds in which the run reached the target and the other spent more or did not reach it.
    mark : str
        ``<=`` where some of the runs, ``>=`` where some of the others, never reached it; ``~``:
        both, so that nothing is bounded.
    """

    total: float
    low: float
    high: float
    wins: int
    seeds: int
    mark: str

    def __str__(self) -> str:
        """Return the figures as a cell."""
        text = f"{self.mark}{self.total:+.1f}"
        if self.seeds > 1:
            text += f" [{self.low:+.1f}, {self.high:+.1f}]"
        return f"{text}, {self.wins}/{self.seeds}"


def saving(runs: BySeed, others: BySeed, key: str) -> Saving | None:
    """Return what runs spent less than others of the same seeds; None if they share no seed."""
    shared = [seed for seed in runs if seed in others]
    if not shared:
        return None
    pairs = np.array([(runs[seed][key], others[seed][key]) for seed in shared], dtype=float)
    drawn = np.random.default_rng(0).integers(len(shared), size=(RESAMPLES, len(shared)))
    sums = pairs[drawn].sum(axis=1)
    low, high = np.quantile(100 * (1 - sums[:, 0] / sums[:, 1]), (0.025, 0.975))
    mine, theirs = pairs.sum(axis=0)
    won = [
        not missed(runs[seed]) and (missed(others[seed]) or runs[seed][key] < others[seed][key])
        for seed in shared
    ]
    sides = some_missed(runs), some_missed(others)
    mark = {(True, False): "<= ", (False, True): ">= ", (True, True): "~ "}.get(sides, "")
    return Saving(
        float(100 * (1 - mine / theirs)), float(low), float(high), sum(won), len(shared), mark
    )


def lost(runs: BySeed, others: BySeed) -> list[float]:
    """Return test accuracies less those of the others of the same seeds, in points."""
    return [
        100 * (line["accuracy"] - others[seed]["accuracy"])
        for seed, line in runs.items()
        if seed in others
    ]


def finding(mean: float, low: float, least: float, seeds: int, mark: str = "") -> str:
    """Say whether what is wanted was found; nothing of fewer than `FEWEST` seeds.

    Parameters
    ----------
    mean, low : float
        What was found, and the lower end of its interval.
    least : float
        What is wanted.
    seeds : int
        Seeds that the figures are of.
    mark : str
        Of a `Saving`: what the figures bound.

    Returns
    -------
    str
        In brackets, behind a blank; or nothing.
    """
    if seeds < FEWEST:
        return ""
    if mark == "~ " or (mark == "<= " and mean >= least) or (mark == ">= " and mean < least):
        return " (open)"
    if mean < least:
        return " (missed)"
    return " (met)" if low >= least else " (met on average)"


def _idle(line: Line) -> float:
    whole = line["idle_seconds"] + line["busy_seconds"]
    return 100 * line["idle_seconds"] / whole if whole else 0.0


FIGURES: dict[str, tuple[Callable[[Line], float], str]] = {
    "rounds": (lambda line: line["rounds"], ".1f"),
    "circuits, millions": (lambda line: line["circuits"] / 1e6, ".2f"),
    "spend, millions": (lambda line: line["spend"] / 1e6, ".2f"),
    "idle, 1,000 s": (lambda line: line["idle_seconds"] / 1e3, ".2f"),
    "idle share, %": (_idle, ".1f"),
    "wall, 1,000 s": (lambda line: line["seconds"] / 1e3, ".2f"),
    "MB": (lambda line: line["bytes"] / 1e6, ".2f"),
}


def costs(agents: Mapping[str, BySeed]) -> str:
    """Return what each agent paid; a lower bound, marked ``>=``, where some missed the target."""
    rows = [head(("agent", "reached", "test accuracy, %", *FIGURES))]
    for name, runs in agents.items():
        lines = list(runs.values())
        mark = ">= " if some_missed(runs) else ""
        aimed = any(line["target"] is not None for line in lines)
        there = f"{sum(not missed(line) for line in lines)}/{len(lines)}" if aimed else "-"
        accuracy = spread([100 * line["accuracy"] for line in lines], ".2f")
        cells = [
            spread([read(line) for line in lines], form, "" if "%" in title else mark)
            for title, (read, form) in FIGURES.items()
        ]
        rows.append(row((name, there, accuracy, *cells)))
    return "\n".join(rows)


def savings(agents: Mapping[str, BySeed], whole: BySeed) -> str:
    """Return what agents saved against plain QFL of the same seeds, and whether that is enough.

    Test accuracy is held against plain QFL at the target, and, for the finding, against plain QFL
    after all its rounds, which has had more of them; with the seeds that are within `WITHIN` of it
    or above. Where some never reached the target, intervals are those of what they had paid.
    """
    titles = [f"{name.replace('_', ' ')} saved, % [95 %], seeds" for name in SAVED]
    rows = [head(("agent", *titles, "test, to plain at target", "to plain's end, points, seeds"))]
    for name, runs in agents.items():
        if name == PLAIN:
            continue
        cells = []
        for key, least in SAVED.items():
            found = saving(runs, agents[PLAIN], key)
            text = str(found) if found else "-"
            if found and least is not None:
                text += finding(found.total, found.low, least, found.seeds, found.mark)
            cells.append(text)
        cells.append(spread(lost(runs, agents[PLAIN]), "+.2f"))
        ends = lost(runs, whole)
        mean, near = statistics.fmean(ends), sum(points >= -WITHIN for points in ends)
        end = finding(mean, mean - interval(ends), -WITHIN, len(ends))
        cells.append(f"{spread(ends, '+.2f')}, {near}/{len(ends)}{end}")
        rows.append(row((name, *cells)))
    return "\n".join(rows)


def against(agents: Mapping[str, BySeed], ours: str, others: Sequence[str]) -> str:
    """Return what one agent saves against others until the target, and its test accuracy."""
    keys = ("circuits", "spend", "idle_seconds")
    titles = [f"{name.replace('_', ' ')} saved, % [95 %], seeds" for name in keys]
    rows = [head((f"{ours} against", *titles, "test, points"))]
    for name in others:
        pair = agents[ours], agents[name]
        cells = [str(saving(*pair, key) or "-") for key in keys]
        rows.append(row((name, *cells, spread(lost(*pair), "+.2f"))))
    return "\n".join(rows)


def proof(agents: Mapping[str, BySeed], whole: BySeed) -> str:
    """Return the tables of one data set: what each agent paid, and what it saved.

    Parameters
    ----------
    agents : mapping
        Runs to the target by agent and seed, plain QFL's among them.
    whole : mapping
        Plain QFL's runs of all rounds, by seed.
    """
    tables = [costs({f"{PLAIN}, all rounds": whole, **agents}), savings(agents, whole)]
    others = [name for name in agents if name not in (PLAIN, OURS)]
    if OURS in agents and others:
        tables.append(against(agents, OURS, others))
    return "\n\n".join(tables)
