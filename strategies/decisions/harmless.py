"""When clients may be left out of a round: only while that is harmless; pure.

Three tests, on what the observation holds, so that a replay of a recorded run gives the same:

1. **Coverage.** The classes' shares of the participants' rows, as they count in the average, differ
   from those of all trusted clients' rows by at most `MIX` in total variation.
2. **Credit.** No client rests longer than twice the rounds that a fair rotation of so many
   participants would take, but those whose mean credit is below zero by `SURE` standard errors: the
   server has shown that the average is better without them. They are not trusted, as long as they
   hold at most `MOST_DISTRUSTED` of every class's rows. Where there is no credit, all are.
3. **Trend.** In one of the last `PROBE` rounds everybody trained, and over the last `WINDOW` rounds
   since then the validation loss is on average no higher than it was after it. Accuracy jumps from
   round to round by more than leaving clients out costs: it is not looked at.

Where one fails, everybody trains the round.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from strategies.decisions import ClientView, Observation
from strategies.decisions.client_value import mean, standing_error

MIX = 0.2
"""Most that the classes' shares of a round may differ from those of all: total variation."""

SURE = 2.0
"""Standard errors by which a client's mean credit is below zero if it is shown to do harm."""

MOST_DISTRUSTED = 0.25
"""Most of a class's rows that clients shown to do harm may hold."""

WINDOW = 2
"""Rounds whose mean is held against the last round of everybody."""

PROBE = 10
"""Rounds after which everybody trains again, for the others to be held against."""

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
        (COVERAGE, badly_mixed(inside, seen.clients)),
        (CREDIT, long_rest(inside, outside, seen.clients)),
        (TREND, falls_behind(seen)),
    )
    return next(((test, why) for test, why in tests if why), ("", ""))


def badly_mixed(inside: Sequence[ClientView], everybody: Sequence[ClientView]) -> str:
    """Say how far the participants' classes are from those of all that are trusted; "": not far."""
    harmful = {view.client for view in distrusted(everybody)}
    trusted = [view for view in everybody if view.client not in harmful]
    apart = variation(class_shares(inside), class_shares(trusted))
    if apart <= MIX:
        return ""
    return f"the participants' classes are {apart:.2f} from those of all (at most {MIX:g})"


def long_rest(
    inside: Sequence[ClientView], outside: Sequence[ClientView], everybody: Sequence[ClientView]
) -> str:
    """Say who has rested as long as it may; "" if nobody has."""
    harmful = {view.client for view in distrusted(everybody)}
    for view in overdue(outside, len(inside), len(everybody), harmful):
        shown = "has no credit" if view.standing is None else "is not shown to do harm"
        return f"client {view.client} {shown} and has rested for {view.rounds_since} rounds"
    return ""


def overdue(
    outside: Sequence[ClientView], participants: int, clients: int, harmful: Collection[int]
) -> list[ClientView]:
    """Return who has rested as long as it may beside so many participants of the clients."""
    most = longest_rest(participants, clients)
    return [v for v in outside if v.rounds_since >= most and v.client not in harmful]


def longest_rest(participants: int, clients: int) -> int:
    """Return how many rounds a client may rest: twice what a fair rotation would have it rest."""
    return math.ceil(2 * clients / max(1, participants)) - 1


def falls_behind(seen: Observation) -> str:
    """Say by what the last rounds are behind the last round of everybody; "": they are not."""
    plain = [i for i, count in enumerate(seen.participants) if count >= len(seen.clients)]
    if not plain:
        return "there was no round of everybody yet"
    at = plain[-1]
    since = len(seen.losses) - 1 - at
    if since >= PROBE:
        return f"everybody trained {since} rounds ago"
    if since < WINDOW:
        return ""
    now, before = mean(seen.losses[-WINDOW:]), seen.losses[at]
    if now <= before:
        return ""
    return f"validation loss {now:.4f} after {before:.4f} when everybody had trained"


def shown_harmful(view: ClientView) -> bool:
    """Whether a client's mean credit is surely below zero."""
    error = standing_error(view)
    return view.standing is not None and error is not None and view.standing + SURE * error < 0


def distrusted(clients: Sequence[ClientView]) -> list[ClientView]:
    """Return the clients shown to do harm, worst first, as long as they hold little of each class.

    Those that would bring a class's distrusted rows above `MOST_DISTRUSTED` are not among them:
    credit is measured on the server's rows, and most of a class cannot be wrong.
    """
    whole = class_rows(clients)
    found: list[ClientView] = []
    for view in sorted(filter(shown_harmful, clients), key=lambda one: one.standing or 0.0):
        held = class_rows([*found, view])
        few = all(n <= MOST_DISTRUSTED * m for n, m in zip(held, whole, strict=False) if m)
        if few and len(found) + 1 < len(clients):
            found.append(view)
    return found


def class_rows(clients: Sequence[ClientView]) -> list[float]:
    """Add up clients' rows of each class, as they count."""
    return _added(list(map(counted_rows, clients)))


def counted_rows(view: ClientView) -> list[float]:
    """Return a client's rows of each class, scaled to the rows that it counts for."""
    total = sum(view.class_rows)
    counts = view.weight or total
    return [counts * n / total if total else 0.0 for n in view.class_rows]


def class_shares(clients: Sequence[ClientView]) -> list[float]:
    """Return each class's share of the clients' rows as they count; empty where none is known."""
    return shares_of(list(map(counted_rows, clients)))


def shares_of(counts: Sequence[Sequence[float]]) -> list[float]:
    """Return each class's share of what `counted_rows` says of clients; empty if nothing."""
    rows = _added(counts)
    total = sum(rows)
    return [count / total for count in rows] if total else []


def _added(counts: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*counts, strict=False)]


def counted(lines: Iterable[Sequence[str]]) -> dict[str, int]:
    """Count the rounds in which everybody trained for want of a test, by test.

    Parameters
    ----------
    lines : iterable of sequence of str
        What the guard noted in each round.
    """
    notes = [note for line in lines for note in line if note.startswith(EVERYBODY)]
    tests = Counter(note.removeprefix(EVERYBODY).partition(":")[0] for note in notes)
    return {test: tests[test] for test in (COVERAGE, CREDIT, TREND) if tests[test]}


def variation(shares: Sequence[float], others: Sequence[float]) -> float:
    """Return the total variation between classes' shares: 0 equal, 1 no class in common."""
    return sum(abs(a - b) for a, b in zip(shares, others, strict=False)) / 2
