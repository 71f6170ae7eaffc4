"""Theorems 6.4 to 6.6: what they say, beside what is measured.

``python -m bench.theory.convergence [--out FOLDER]``; under three minutes on two idle cores, no
data, no network. Writes ``convergence.svg`` into FOLDER (by itself ``docs/``) and, where FOLDER is
given, ``convergence.json`` with every figure. The same numbers come again, but for seconds.

6.4 is Li et al. (arXiv 1907.02189), theorems 1 and 3, carried over: on smooth, strongly convex
losses, at rate 2 / (mu (t + gamma)), the expected gap falls as 1 / (t + gamma). It is checked on
logistic regression over sites of skewed labels (`bench.theory.convex`), where every constant is
computed. The quantum model's loss is not convex (its Hessian is printed too), so that the theorem
says nothing of it; a real run's curve is shown as an observation. 6.5 and 6.6 (bytes and circuits)
are held against the ledgers of real runs (`bench.theory.laws`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.tables import ROOT, commit, head, row
from bench.theory.convex import (
    Constants,
    Sites,
    bound,
    constants_of,
    draw_sites,
    expected_shares,
    limit,
)
from bench.theory.laws import Fit, Law, curvature, curves, laws, seconds
from bench.theory.local_sgd import Course, Plan, Slope, slope, train

HORIZON, REPETITIONS, SEED = 50_000, 40, 0

ROWS = {
    "unequal": [30, 30, 60, 60, 90, 120, 150, 180, 240, 240],
    "equal": [120] * 10,
}
"""Rows of the ten sites. Drawing sites is the theorem's only where they are equal."""

MARKS = (0, 100, 1_000, 10_000, HORIZON)
"""Local steps t at which the course of gap x (t + gamma) is printed."""

PERIODS = (1, 5, 20, 80)
CHOSEN = 3


@dataclass(frozen=True)
class Case:
    """A plan on one of the two problems; ``covered`` says whether the theorem speaks of it."""

    name: str
    rows: Literal["unequal", "equal"]
    plan: Plan
    covered: bool = True


CASES = (
    *(Case(f"all sites, E = {period}", "unequal", Plan(period)) for period in PERIODS),
    *(Case(f"3 of 10, E = {period}", "equal", Plan(period, CHOSEN)) for period in PERIODS),
    Case("all, E = 5, constant rate", "unequal", Plan(5, rate="constant"), False),
    Case("all, E = 5, a tenth of it", "unequal", Plan(5, rate="constant", slower=10), False),
    Case("3 of 10, E = 5, own t", "equal", Plan(5, CHOSEN, "own"), False),
    Case("3 of 10, E = 5, unequal rows", "unequal", Plan(5, CHOSEN), False),
)


@dataclass(frozen=True)
class Finding:
    """What a case has shown.

    Attributes
    ----------
    course : list of float
        gap x (t + gamma) at `MARKS`.
    most : float
        Its largest value.
    late, late_error : float
        Its mean over the last decade, and half the 95 % interval over repetitions.
    limit : float or None
        What it should tend to, to first order.
    bound : dict or None
        The theorem's, by terms and in all; None where it says nothing.
    bound_met : float or None
        The same in all with the least sigma^2 and G^2 that this very run allows.
    two, one : Slope
        Of log gap against log (t + gamma), over the last two decades and the last one.
    end : float
        Mean gap over the last decade.
    deviation : float
        Of numpy's means from the strategy's aggregation.
    """

    course: list[float]
    most: float
    late: float
    late_error: float
    limit: float | None
    bound: dict[str, float] | None
    bound_met: float | None
    two: Slope
    one: Slope
    end: float
    deviation: float


def finding(case: Case, sites: Sites, known: Constants, course: Course) -> Finding:
    """Work a course out."""
    period, chosen = case.plan.period, case.plan.chosen
    gamma = known.gamma(period)
    shifted = course.steps + gamma
    scaled = course.gaps * shifted
    mean = scaled.mean(axis=0)
    late = shifted >= shifted[-1] / 10
    each = scaled[:, late].mean(axis=1)
    met = {"gradient": course.gradient, "variance": course.variance}
    shares = sites.shares
    return Finding(
        course=[float(mean[np.abs(course.steps - mark).argmin()]) for mark in MARKS],
        most=float(mean.max()),
        late=float(each.mean()),
        late_error=float(1.96 * each.std(ddof=1) / len(each) ** 0.5),
        limit=limit(sites, known, period, chosen) if case.covered else None,
        bound=bound(known, shares, period, chosen) if case.covered else None,
        bound_met=bound(known, shares, period, chosen, **met)["total"] if case.covered else None,
        two=slope(course, gamma, 2),
        one=slope(course, gamma, 1),
        end=float(course.gaps[:, late].mean()),
        deviation=course.deviation,
    )


def convex(horizon: int, repetitions: int) -> tuple[dict[str, Finding], dict[str, Course]]:
    """Run all cases on the convex problems."""
    found: dict[str, Finding] = {}
    courses: dict[str, Course] = {}
    for number, case in enumerate(CASES):
        sites = draw_sites(ROWS[case.rows], SEED)
        known = constants_of(sites)
        course = train(sites, known, case.plan, horizon, repetitions, SEED + number)
        courses[case.name] = course
        found[case.name] = finding(case, sites, known, course)
        print(f"{case.name}: {found[case.name].two}", file=sys.stderr, flush=True)
    return found, courses


def problems() -> dict[str, dict[str, float]]:
    """Return both problems' constants."""
    constants = {}
    for name, rows in ROWS.items():
        sites = draw_sites(rows, SEED)
        known = constants_of(sites)
        biased = sites.optimum(expected_shares(sites.rows, CHOSEN))
        constants[name] = {
            "mu": known.mu,
            "L": known.smoothness,
            "kappa": known.condition,
            "gamma": known.gamma(1),
            "F*": known.least,
            "F(0) - F*": float(sites.loss(np.zeros_like(known.optimum), sites.shares))
            - known.least,
            "norm of grad F(w*)": float(
                np.linalg.norm(sites.gradient(known.optimum, sites.shares))
            ),
            "Gamma": known.apart,
            "sum p^2 sigma^2": float(sites.shares**2 @ known.variance),
            "G^2": known.gradient,
            "3 of 10, by rows: F - F*": float(sites.loss(biased, sites.shares)) - known.least,
        }
    return constants


def constants_table(constants: Mapping[str, Mapping[str, float]]) -> str:
    """Return the problems' constants as a table."""
    lines = [head(["rows of the ten sites", *constants["equal"]])]
    lines += [
        row([name, *(f"{v:.3g}" for v in values.values())]) for name, values in constants.items()
    ]
    return "\n".join(lines)


def theorem_table(found: Mapping[str, Finding]) -> str:
    """Return slopes, the course of gap x (t + gamma), its limit and the bound."""
    marks = [f"t = {mark:,}" for mark in MARKS]
    columns = ["case", "slope, last two decades", "last decade", *marks, "largest"]
    columns += ["mean, last decade", "first-order limit"]
    columns += ["bound", "bound / largest", "bound, constants met"]
    lines = [head(columns)]
    for name, one in found.items():
        cells = [name, str(one.two), str(one.one), *(f"{value:.3g}" for value in one.course)]
        cells += [f"{one.most:.3g}", f"{one.late:.3f} ± {one.late_error:.3f}"]
        if one.limit is None or one.bound is None or one.bound_met is None:
            cells += ["-"] * 4
        else:
            whole = one.bound["total"]
            cells += [f"{one.limit:.3f}", f"{whole:,.0f}", f"{whole / one.most:,.0f}"]
            cells += [f"{one.bound_met:,.0f}"]
        lines.append(row(cells))
    return "\n".join(lines)


def bound_table(found: Mapping[str, Finding]) -> str:
    """Return what the bound is made of."""
    terms = {
        "noise": "sum p^2 sigma^2",
        "apart": "6 L Gamma",
        "drift": "8 (E-1)^2 G^2",
        "sampling": "C",
        "start": "mu gamma / 2 x squared distance of w_0",
    }
    lines = [head(["case", *terms.values()])]
    for name, one in found.items():
        if one.bound is not None:
            lines.append(row([name, *(f"{one.bound[term]:.4g}" for term in terms)]))
    return "\n".join(lines)


def law_table(found: Mapping[str, Law]) -> str:
    """Return laws beside ledgers."""
    columns = ["run", "P + 2R", "participants x rounds", "circuits by law", "in the ledger"]
    columns += ["bytes by law", "in the ledger", "lines equal"]
    lines = [head(columns)]
    for name, law in found.items():
        cells = [name, str(law.numbers), str(law.orders)]
        cells += [f"{count:,}" for count in (*law.circuits, *law.bytes)]
        lines.append(row([*cells, f"{law.lines} of {law.orders}" + ("" if law.exact else " (!)")]))
    return "\n".join(lines)


def picture(
    path: Path, courses: Mapping[str, Course], curves: Mapping[str, Sequence[float]]
) -> None:
    """Draw gaps against t + gamma, and the quantum model's losses by round."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "llm-qfl", "font.size": 9}):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_gaps(left, courses)
        _draw_losses(right, curves)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25, linewidth=0.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _draw_gaps(axes: Any, courses: Mapping[str, Course]) -> None:
    """Draw the mean gaps, and the limits of those that the theorem covers."""
    drawn = (
        ("all, E = 5, constant rate", "all sites, constant rate", "#D55E00"),
        ("all, E = 5, a tenth of it", "all sites, a tenth of it", "#E69F00"),
        ("3 of 10, E = 5, unequal rows", "3 of 10, unequal rows, mean by rows", "#CC79A7"),
        ("3 of 10, E = 5", "3 of 10, equal rows, theorem's rate", "#0072B2"),
        ("all sites, E = 5", "all sites, theorem's rate", "#009E73"),
    )
    for name, label, colour in drawn:
        case = next(case for case in CASES if case.name == name)
        sites = draw_sites(ROWS[case.rows], SEED)
        known = constants_of(sites)
        shifted = courses[name].steps + known.gamma(case.plan.period)
        axes.loglog(shifted, courses[name].mean, color=colour, label=label, linewidth=1.6)
        if case.covered:
            line = limit(sites, known, case.plan.period, case.plan.chosen) / shifted
            axes.loglog(shifted, line, color=colour, linestyle="--", linewidth=1)
    axes.plot([], [], color="#666666", linestyle="--", linewidth=1, label=r"limit / $(t + \gamma)$")
    axes.set(xlabel=r"$t + \gamma$, local steps", ylabel="F(w) - F*, mean of the repetitions")
    axes.set_title("Convex problem, E = 5: theorem 6.4", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _draw_losses(axes: Any, curves: Mapping[str, Sequence[float]]) -> None:
    for (name, losses), colour in zip(curves.items(), ("#D55E00", "#009E73"), strict=True):
        axes.plot(range(1, len(losses) + 1), losses, color=colour, label=name, linewidth=1.6)
    axes.set(xlabel="round", ylabel="validation loss, nats")
    axes.set_title("Quantum model: not convex, not covered", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def report(
    found: Mapping[str, Finding],
    paid: Mapping[str, Law],
    fits: Mapping[str, Fit],
    losses: Mapping[str, Sequence[float]],
    bends: Sequence[tuple[float, float]],
) -> None:
    """Print all tables."""
    print(f"### The problems\n\n{constants_table(problems())}\n")
    print(f"### Theorem 6.4: gap x (t + gamma)\n\n{theorem_table(found)}\n")
    print(f"Terms of the bound:\n\n{bound_table(found)}\n")
    floors = (f"{k}: {one.end:.3g}" for k, one in found.items() if one.limit is None)
    print("Mean gap over the last decade: " + "; ".join(floors) + "\n")
    off = max(one.deviation for one in found.values())
    print(f"Largest deviation of means from the strategy's aggregation: {off:.1e}\n")
    print(f"### Theorems 6.5 and 6.6: laws and ledgers\n\n{law_table(paid)}\n")
    for name, one in fits.items():
        print(
            f"Busy seconds against {name}: {one.at_zero:.4f} + {one.slope:.3g} x {name}, "
            f"R² {one.r2:.3f}"
        )
    print("\n### The quantum model (the theorem does not cover it)\n")
    ranges = "; ".join(f"{low:.2f} to {high:.2f}" for low, high in bends)
    print(f"Curvature at random parameters, least to largest: {ranges}")
    for name, values in losses.items():
        print(f"{name}: validation loss by round " + " ".join(f"{loss:.4f}" for loss in values))


def main(given: list[str]) -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(prog="bench.theory.convergence", description=__doc__)
    parser.add_argument("--out", type=Path, help="gets the picture and all figures as JSON")
    out = parser.parse_args(given).out
    if out and out.exists() and not out.is_dir():
        parser.error(f"--out {out} is a file; name a folder, which need not exist")
    began, spent = time.monotonic(), time.process_time()
    found, courses = convex(HORIZON, REPETITIONS)
    bends = curvature()
    with tempfile.TemporaryDirectory() as store:
        paid, fits, losses = laws(store), seconds(store), curves(store)
    picture((out or ROOT / "docs") / "convergence.svg", courses, losses)
    report(found, paid, fits, losses, bends)
    wall, cpu = time.monotonic() - began, time.process_time() - spent
    print(f"\n{wall:.0f} s, of which {cpu:.0f} CPU seconds; commit {commit()}")
    if out:
        parts: dict[str, Mapping[str, Any]] = {"cases": found, "laws": paid, "seconds": fits}
        figures = {part: {k: asdict(v) for k, v in one.items()} for part, one in parts.items()}
        whole = {**figures, "problems": problems(), "losses": losses, "curvature": bends}
        (out / "convergence.json").write_text(json.dumps(whole, indent=1) + "\n")
    return 0 if all(law.exact for law in paid.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
