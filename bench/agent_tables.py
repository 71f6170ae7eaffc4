"""The registered comparison of agents as a Markdown table: ``python -m bench.agent_tables FOLDER``.

Only seeds that every line has. Saved: one less the ratio of the sums until the target, with the
paired bootstrap's 95 % interval (`reporting.study_figures.saving`). p: sign-flip test of the paired
logarithms of spend against the first agent's, by Holm's correction. ``<=``: some runs missed the
target and count with all they paid. Test accuracy is that of the last model, less plain QFL's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.study_tables import bounds
from bench.tables import head, row
from reporting.study_figures import interval, saving, sign_flip
from reporting.study_record import StudyRecord, read_study_record

TITLES = [
    "agent",
    "reached",
    "spend saved, % [95 %]",
    "circuits saved, %",
    "rounds, of plain",
    "p of spend (Holm)",
    "test accuracy to plain, points [95 %]",
    "within half a point or above",
]


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for being several (Holm 1979), in their order."""
    order, found, above = np.argsort(values), [0.0] * len(values), 0.0
    for place, at in enumerate(order):
        above = max(above, min(1.0, (len(values) - place) * values[at]))
        found[at] = above
    return found


def table(record: StudyRecord, plain: str, agent: str) -> str:
    """Return the table of a study's folder, with the number of seeds that count."""
    done = record.table[record.table["status"] == "completed"]
    lines: dict[str, Any] = {
        str(name): runs.set_index("seed") for name, runs in done.groupby("agent", sort=False)
    }
    seeds = sorted(set.intersection(*(set(runs.index) for runs in lines.values())))
    lines = {name: runs.loc[seeds] for name, runs in lines.items()}
    spend = {name: np.log(runs["spend_to_target"].to_numpy(float)) for name, runs in lines.items()}
    others = [name for name in lines if name not in (agent,)]
    corrected = holm([sign_flip(spend[name] - spend[agent]) for name in others])
    p = dict(zip(others, corrected, strict=True))
    rows = [f"{len(seeds)} seeds: {', '.join(map(str, seeds))}", "", head(TITLES)]
    for name, runs in lines.items():
        cells = [name, f"{int(runs['reached'].sum())}/{len(seeds)}"]
        for cost, digits in (("spend", 1), ("circuits", 1)):
            found = saving(runs, lines[plain], cost)
            ends = [100 * found[f"saved{end}"] for end in ("", "_low", "_high")]
            text = "-" if name == plain else f"{found['saved_mark']} {bounds(ends, digits)}"
            cells.append(text.strip())
        both = (runs, lines[plain])
        cells.append("{:.1f}, {:.1f}".format(*(one["rounds_to_target"].mean() for one in both)))
        cells.append(f"{p[name]:.3f}" if name in p else "-")
        gain = 100 * (runs["accuracy"] - lines[plain]["accuracy"]).to_numpy(float)
        cells.append("-" if name == plain else bounds([gain.mean(), *interval(gain)], 2))
        cells.append(f"{int((gain >= -0.5).sum())}/{len(seeds)}")
        rows.append(row(cells))
    return "\n".join(rows)


def main() -> None:
    """Print the table of a study's folder."""
    parser = argparse.ArgumentParser(prog="bench.agent_tables", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plain", default="plain, all rounds")
    parser.add_argument("--agent", default="frugal")
    given = parser.parse_args()
    print(table(read_study_record(given.folder), given.plain, given.agent))


if __name__ == "__main__":
    main()
