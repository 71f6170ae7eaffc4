"""Credit of each returned model: evaluated at the server before the next decision, pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Model = TypeVar("Model")
Part = TypeVar("Part", int, tuple[int, ...])


@dataclass(frozen=True)
class Credit:
    """What one participant's model was worth in a round, nats of the server's validation loss.

    Attributes
    ----------
    credit : float
        Leave one out: loss of the aggregate without its model less loss of the aggregate. Above
        0 the model helped. Where the others make no aggregate, as of an only participant, its gain.
    gain : float or None
        Loss of the global model before the round less loss of its model alone; None if unknown.
    """

    credit: float
    gain: float | None


def credits(
    models: Mapping[Part, Model],
    aggregate: Callable[[list[Part]], Model | None],
    loss: Callable[[Model], float],
    before: float | None,
    after: float,
) -> dict[Part, Credit]:
    """Judge every participant's model: alone, and by what the aggregate is without it.

    Parameters
    ----------
    models : mapping
        Aggregated models by client; under secure aggregation means by the clients of a group.
    aggregate : callable
        Aggregates the models of those it is given; None: it does not of so few.
    loss : callable
        Validation loss at the server, nats.
    before, after : float
        Losses of the global model before the round (None if unknown) and after it.

    Returns
    -------
    dict
        By client or group. At most 2 K evaluations of K models, half of them for gains, which need
        `before`; none costs a circuit on the exact simulator.
    """
    found = {}
    for client, model in models.items():
        gain = None if before is None else before - loss(model)
        others = [other for other in models if other != client]
        without = aggregate(others) if others else None
        credit = loss(without) - after if without is not None else gain or 0.0
        found[client] = Credit(credit, gain)
    return found


def rate(rounds: int) -> float:
    """Return the weight of the last of so many credits in their moving mean."""
    return max(1.0 / rounds, 0.3)


def share(credit: float, scale: float) -> float:
    """Return a credit as a multiple of the round's scale."""
    return credit / scale if scale > 0 else 0.0


def standing(before: float | None, credit: float, scale: float, rounds: int) -> float:
    """Return a client's standing after one more round.

    Parameters
    ----------
    before : float or None
        Its standing so far.
    credit : float
        Its credit in the round, nats.
    scale : float
        Mean absolute credit of the round's participants: credits shrink as the loss falls.
    rounds : int
        Rounds that it has been credited for, this one included.

    Returns
    -------
    float
        Mean of credit / scale, an exponential one from the fourth round on.
    """
    if before is None:
        return share(credit, scale)
    return before + rate(rounds) * (share(credit, scale) - before)


def standing_variance(
    variance: float | None, before: float | None, credit: float, scale: float, rounds: int
) -> float:
    """Return the variance of a client's credits about their moving mean, with the same weights.

    Parameters are those of `standing`, and the variance so far (West 1979: one pass, no history).
    """
    if before is None:
        return 0.0
    weight, off = rate(rounds), share(credit, scale) - before
    return (1 - weight) * ((variance or 0.0) + weight * off * off)


def weights_squared(rounds: int) -> float:
    """Return the sum of the squared weights of so many credits in their moving mean.

    1 / n for n rounds of equal weight, near 0.18 in the long run.
    """
    found = 1.0
    for number in range(2, min(rounds, 40) + 1):
        found = (1 - rate(number)) ** 2 * found + rate(number) ** 2
    return found
