"""When clients may be left out of a round: only while that is harmless; pure.

Three tests, on what the observation holds, so that a replay of a recorded run gives the same:

1. **Coverage.** Of every class the participants hold at least `BALANCE` of the share that all
   clients have, each counted as it counts in the average; and no client rests longer than twice the
   rounds that a fair rotation of so many participants would take.
2. **Credit.** Only a client whose mean credit is below zero by its standard error may rest without
   end, and only while such clients hold less than `MOST_DISTRUSTED` of every class's rows: the
   server has shown that the average is better without it. Where there is no credit, nobody may.
3. **Trend.** There has been a round of everybody, and over the last `WINDOW` rounds since then
   validation loss and accuracy are on average better than they were after it.

Where one fails, everybody trains the round.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from strategies.decisions import ClientView, Observation
from strategies.decisions.client_value import mean, standing_error

BALANCE = 0.5
"""Least share of a class among the participants, as a multiple of its share of all rows."""

MOST_DISTRUSTED = 0.5
"""Share of a class's rows that clients shown to do harm may hold."""

WINDOW = 2
"""Rounds whose mean is held against the last round of everybody."""

EVERYBODY = "everybody trains: "
"""How the guard's note begins; the reasons follow."""

COVERAGE, CREDIT, TREND = "coverage", "credit", "trend"


def why_not(chosen: Collection[int], seen: Observation) -> tuple[str, str]:
    """Say why leaving out all but these clients might do harm.

    Parameters
    ----------
    chosen : collection of int
        Who would train.
    seen : Observation
        What is known.

    Returns
    -------
    tuple of str
        Which test fails, `COVERAGE`, `CREDIT` or `TREND`, and a sentence; both empty where it is
        harmless, or nobody is left out.
    """
    inside = [view for view in seen.clients if view.client in chosen]
    outside = [view for view in seen.clients if view.client not in chosen]
    if not outside:
        return "", ""
    tests = (
        (COVERAGE, short_class(inside, seen.clients)),
        (CREDIT, long_rest(inside, outside, seen.clients)),
        (TREND, falls_behind(seen)),
    )
    return next(((test, why) for test, why in tests if why), ("", ""))


def short_class(inside: Sequence[ClientView], everybody: Sequence[ClientView]) -> str:
    """Say of which class the participants hold too little; "" of none, or if nobody counts it."""
    theirs, all_rows = class_shares(inside), class_shares(everybody)
    for label, (share, whole) in enumerate(zip(theirs, all_rows, strict=False)):
        if share < BALANCE * whole:
            return (
                f"{100 * share:.0f} % of the participants' rows are of class {label}, "
                f"{100 * whole:.0f} % of all"
            )
    return ""


def long_rest(
    inside: Sequence[ClientView], outside: Sequence[ClientView], everybody: Sequence[ClientView]
) -> str:
    """Say who has rested as long as it may; "" if nobody has."""
    most = longest_rest(len(inside), len(everybody))
    harmful = {view.client for view in distrusted(everybody)}
    for view in outside:
        if view.rounds_since >= most and view.client not in harmful:
            known = view.standing is not None
            shown = "is not shown to do harm" if known else "has no credit"
            return f"client {view.client} {shown} and has rested for {view.rounds_since} rounds"
    return ""


def longest_rest(participants: int, clients: int) -> int:
    """Return how many rounds a client may rest: twice what a fair rotation would have it rest."""
    return math.ceil(2 * clients / max(1, participants)) - 1


def falls_behind(seen: Observation) -> str:
    """Say in what the last rounds are behind the last round of everybody; "" if in nothing."""
    plain = [i for i, count in enumerate(seen.participants) if count >= len(seen.clients)]
    if not plain:
        return "there was no round of everybody yet"
    at = plain[-1]
    if len(seen.losses) - 1 - at < WINDOW:
        return ""
    for name, values, sign in (("loss", seen.losses, 1), ("accuracy", seen.accuracies, -1)):
        now, before = mean(values[-WINDOW:]), values[at]
        if sign * (now - before) > 0:
            return f"validation {name} {now:.4f} after {before:.4f} when everybody had trained"
    return ""


def shown_harmful(view: ClientView) -> bool:
    """Whether a client's mean credit is below zero by its standard error."""
    error = standing_error(view)
    return view.standing is not None and error is not None and view.standing + error < 0


def distrusted(clients: Sequence[ClientView]) -> list[ClientView]:
    """Return the clients shown to do harm, worst first, as long as they hold little of each class.

    Those that would bring a class's distrusted rows to `MOST_DISTRUSTED` of all are not among them:
    credit is measured on the server's rows, and most of a class cannot be wrong.
    """
    whole = class_rows(clients)
    found: list[ClientView] = []
    for view in sorted(filter(shown_harmful, clients), key=lambda one: one.standing or 0.0):
        held = class_rows([*found, view])
        few = all(n < MOST_DISTRUSTED * m for n, m in zip(held, whole, strict=False) if m)
        if few and len(found) + 1 < len(clients):
            found.append(view)
    return found


def class_rows(clients: Sequence[ClientView]) -> list[float]:
    """Add up clients' rows of each class, each client's scaled to the rows that it counts for."""
    scaled = []
    for view in clients:
        total = sum(view.class_rows)
        counts = view.weight or total
        scaled.append([counts * n / total if total else 0.0 for n in view.class_rows])
    return [sum(column) for column in zip(*scaled, strict=False)]


def class_shares(clients: Sequence[ClientView]) -> list[float]:
    """Return each class's share of the clients' rows as they count; empty where none is known."""
    rows = class_rows(clients)
    total = sum(rows)
    return [count / total for count in rows] if total else []
