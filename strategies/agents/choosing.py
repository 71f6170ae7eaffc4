"""Who trains, for how many steps: the set whose value less its waiting is greatest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One client with one number of steps.

    Attributes
    ----------
    client, steps : int
        Who, and how many optimizer steps.
    value : float
        What it is taken to give, less what its circuits cost, nats.
    cost : float
        What its circuits cost, nats.
    seconds : float
        How long it works.
    tried : int
        Rounds that the client has trained in: of equal values the less tried goes first.
    """

    client: int
    steps: int
    value: float
    cost: float = 0.0
    seconds: float = 0.0
    tried: int = 0


def best_set(options: Sequence[Option], most: int, wait: float = 0.0) -> tuple[Option, ...]:
    """Choose the set of greatest value less the worth of its waiting.

    A set is worth the sum of its options' values less `wait` for each second that one of them
    waits for the slowest. Were the slowest one's time D known, each option had a value of its own,
    ``value - wait (D - seconds)``, and the best set were each client's best option, those above 0,
    at most so many. So this is done for every D that occurs, and the best of these is best of all.

    Parameters
    ----------
    options : sequence of Option
        At least one; several a client where steps are to be chosen.
    most : int
        Most participants, at least 1.
    wait : float
        Nats a second of waiting.

    Returns
    -------
    tuple of Option
        By client, one a client at most; where no option is worth its cost, the one nearest to it.
    """
    ranked = sorted(options, key=_rank)
    deadlines = sorted({option.seconds for option in options}) if wait else [float("inf")]
    best: tuple[Option, ...] = (ranked[0],)
    worth = 0.0
    for deadline in deadlines:
        chosen, value = _within(ranked, most, wait, deadline)
        if value > worth:
            best, worth = chosen, value
    return tuple(sorted(best, key=lambda option: option.client))


def waiting(chosen: Sequence[Option]) -> float:
    """Return the seconds that a set's clients together wait for the slowest of them."""
    slowest = max(option.seconds for option in chosen)
    return sum(slowest - option.seconds for option in chosen)


def _rank(option: Option) -> tuple[float, int, float, int, int]:
    return (-option.value, option.tried, option.seconds, option.client, option.steps)


def _within(
    ranked: Sequence[Option], most: int, wait: float, deadline: float
) -> tuple[tuple[Option, ...], float]:
    """Return the best set of those done by a deadline, and its worth if all wait until then."""
    mine: dict[int, tuple[float, Option]] = {}
    for option in ranked:
        value = option.value - (wait * (deadline - option.seconds) if wait else 0.0)
        known = mine.get(option.client)
        if option.seconds <= deadline and value > 0 and (known is None or value > known[0]):
            mine[option.client] = (value, option)
    kept = sorted(mine.values(), key=lambda pair: (-pair[0], *_rank(pair[1])))[:most]
    return tuple(option for _, option in kept), sum(value for value, _ in kept)
