"""How many rows a site counts for: what it declares, up to a multiple of the median site's; pure.

A site declares its own rows, and nobody can count them: one that claims 10^9 would decide every
weighted mean alone. So rows are cut to `aggregation.max_weight` times the median of what the sites
declare, as Portnoy, Tirosh and Hendler do (2020, arXiv 2004.06231: "Towards federated learning with
Byzantine-robust client weighting"). Less than half of the sites cannot move the median beyond what
the others declare; of two sites the smaller one is the median. With the default of 3 a liar holds
at most 3/4 of the weight of two sites, 3/5 of three and 1/4 of ten equal ones; a federation whose
largest site has at most three times the rows of the median one is left exactly as it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def counted_rows(rows: Mapping[int, int], most: float) -> dict[int, int]:
    """Return the rows that each client counts for.

    Parameters
    ----------
    rows : mapping
        Rows that each client declared before the run.
    most : float
        Most of them, as a multiple of the median of those that have any; at least 1.

    Returns
    -------
    dict
        By client; the same numbers where none is above the bound.
    """
    declared = [count for count in rows.values() if count > 0]
    if not declared:
        return dict(rows)
    bound = int(most * statistics.median_low(declared))
    return {client: min(count, bound) for client, count in rows.items()}


def counted_classes(
    class_rows: Mapping[int, Sequence[int]], counted: Mapping[int, int]
) -> list[float]:
    """Add up the sites' rows by class, each site's scaled to the rows that it counts for.

    Parameters
    ----------
    class_rows : mapping
        Training rows of each class, by client.
    counted : mapping
        `counted_rows` of their sums.

    Returns
    -------
    list of float, length C
        Whole numbers where no site was cut.
    """
    scaled = []
    for client, found in class_rows.items():
        total = max(1, sum(found))
        scaled.append([rows * counted[client] / total for rows in found])
    return [sum(column) for column in zip(*scaled, strict=True)]


def dominant(rows: Mapping[int, int], counted: Mapping[int, int]) -> list[int]:
    """Return the clients whose word weighs most of all: cut to the bound, or above half of all.

    Parameters
    ----------
    rows, counted : mapping
        Rows declared, and `counted_rows` of them, by client; one site alone is not dominant.
    """
    total = sum(counted.values())
    if len([count for count in rows.values() if count > 0]) < 2:
        return []
    return [k for k in sorted(rows) if counted[k] < rows[k] or 2 * counted[k] > total]


def dominance(rows: Mapping[int, int], counted: Mapping[int, int], what: str) -> list[str]:
    """Say in a line for each dominant client what it declares and how much of it counts.

    Parameters
    ----------
    rows, counted : mapping
        As in `dominant`.
    what : str
        Which rows, for instance ``training``.
    """
    declared, total = sum(rows.values()), sum(counted.values())
    return [
        f"client {k} declares {rows[k]:,} of {declared:,} {what} rows; "
        f"{counted[k]:,} of {total:,} count ({100 * counted[k] / total:.0f} %)"
        for k in dominant(rows, counted)
    ]
