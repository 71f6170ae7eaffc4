"""What each client gave in the past, what it costs, and both as LinUCB's features: pure.

The bandits learn from the observations alone, so replaying a recorded run's observations in their
order gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from strategies.credit import weights_squared
from strategies.decisions.contract import ClientView, Decision, Observation

DISCOUNT = 0.9
"""Weight of a round beside the next round that was evaluated."""

SCALE_DISCOUNT = 0.5
"""The same for the scale, which falls with the loss."""

FEATURES = 13
"""Entries of a row, in order:

1; log2 of its rows, over the clients' mean; 2 (L_Q less the global loss); 2 (L_LLM less the
clients' mean); ln(L_Q / L_LLM); 5 trend; last credit and last gain over the scale of each; log2 of
what a plain round of it costs and of its seconds a step, over the clients' mean; rounds since it
trained over 5, at most 1; share of its rounds that failed; log2 of its steps over the plain steps.
Each is clipped to -3 ... 3; what is not known is 0.
"""

LARGEST = 3.0
LARGEST_MEAN = 8.0


def mean(values: Iterable[float | None], default: float = 0.0) -> float:
    """Return the mean of the values that are known; the default if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else default


def trained_last(seen: Observation, chosen_before: Mapping[int, int]) -> tuple[ClientView, ...]:
    """Return the clients that trained in the round before the observation's.

    Parameters
    ----------
    seen : Observation
        What is known now.
    chosen_before : mapping
        By client, the rounds it had trained in when the last observation was made. A client that
        was asked and failed has ``rounds_since`` 0 too, but did not train once more.
    """
    return tuple(
        view
        for view in seen.clients
        if view.rounds_since == 0 and view.chosen > chosen_before.get(view.client, 0)
    )


def benefit(view: ClientView) -> float | None:
    """Return what a client's last model contributed, nats; above 0 it helped.

    Its credit; where the server did not evaluate it, its gain; else by how much its own validation
    loss fell, which says what it learnt itself and not what the others have of it.
    """
    if view.credit is not None:
        return view.credit
    if view.gain is not None:
        return view.gain
    return None if view.trend is None else -view.trend


def benefits(views: Iterable[ClientView]) -> dict[int, float]:
    """Return the benefits that are known, by client."""
    found = {view.client: benefit(view) for view in views}
    return {k: value for k, value in found.items() if value is not None and math.isfinite(value)}


def standing_error(view: ClientView) -> float | None:
    """Return the standard error of a client's standing; None before its third round."""
    if view.standing_variance is None or view.chosen < 3:
        return None
    squared = weights_squared(view.chosen)
    return math.sqrt(view.standing_variance * squared / (1 - squared))


def improvement(seen: Observation, window: int) -> float | None:
    """Return by how much a round lowered the best validation loss: mean of the last rounds, nats.

    Parameters
    ----------
    seen : Observation
        What is known now.
    window : int
        Number of last rounds; fewer where fewer are done.

    Returns
    -------
    float or None
        At least 0; None while there is nothing to compare with.
    """
    history = [loss for loss in (seen.start_loss, *seen.losses) if loss is not None]
    back = min(window, len(history) - 1)
    if back < 1:
        return None
    return (min(history[:-back]) - min(history)) / back


def circuit_cost(view: ClientView, steps: int, seen: Observation) -> float:
    """Return what a client's circuits in a round of so many steps cost, nats."""
    return seen.price * view.cost(steps) / seen.plain_spend if seen.plain_spend > 0 else 0.0


def step_seconds(seen: Observation) -> dict[int, float]:
    """Return each client's seconds a step; a client not timed yet has the mean of the others."""
    usual = mean(view.seconds_per_step for view in seen.clients)
    return {
        view.client: usual if view.seconds_per_step is None else view.seconds_per_step
        for view in seen.clients
    }


def waiting_cost(seen: Observation) -> float:
    """Return what a second of one client's waiting costs, nats."""
    work = seen.plain_steps * sum(step_seconds(seen).values())
    return seen.idle_price / work if work > 0 else 0.0


@dataclass
class BenefitHistory:
    """Each client's benefits so far, discounted: a round counts `DISCOUNT` of the next.

    Attributes
    ----------
    scale : float
        How large benefits were lately: mean of their sizes over a round, then over rounds with
        weights that halve. 0 while nothing was evaluated.
    total : float
        Sum of all clients' counts.
    """

    scale: float = 0.0
    _counts: dict[int, float] = field(default_factory=dict)
    _sums: dict[int, float] = field(default_factory=dict)
    total: float = 0.0

    def add(self, benefits: Mapping[int, float]) -> None:
        """Add a round's benefits, nats by client; a round without any changes nothing."""
        if not benefits:
            return
        size = mean(abs(value) for value in benefits.values())
        rate = 1 - SCALE_DISCOUNT if self._counts else 1.0
        self.scale += rate * (size - self.scale)
        for table in (self._counts, self._sums):
            for client in table:
                table[client] *= DISCOUNT
        for client, value in benefits.items():
            self._counts[client] = self.count(client) + 1.0
            self._sums[client] = self._sums.get(client, 0.0) + value
        self.total = sum(self._counts.values())

    def count(self, client: int) -> float:
        """Return the discounted number of rounds that a client was evaluated in."""
        return self._counts.get(client, 0.0)

    def mean(self, client: int) -> float | None:
        """Return the discounted mean of a client's benefits, nats; None if it has none."""
        count = self.count(client)
        return self._sums[client] / count if count > 0 else None


@dataclass(frozen=True)
class Features:
    """What is known of a client when a round is decided.

    Attributes
    ----------
    known : numpy.ndarray, shape (FEATURES - 1,)
        All entries but the steps.
    mean_benefit : float
        Mean of its benefits so far, or of the other clients' where it has none, in units of the
        benefits' scale.
    plain_steps : int
        Steps of a plain round.
    """

    known: npt.NDArray[np.float64]
    mean_benefit: float
    plain_steps: int

    def row(self, steps: int) -> npt.NDArray[np.float64]:
        """Return the row of features of the client with so many steps."""
        return np.append(self.known, math.log2(max(1, steps) / self.plain_steps))


def client_features(seen: Observation, history: BenefitHistory) -> dict[int, Features]:
    """Return every client's features, by index.

    Parameters
    ----------
    seen : Observation
        What is known now.
    history : BenefitHistory
        The clients' benefits so far.
    """
    views = seen.clients
    now = seen.losses[-1] if seen.losses else None
    columns = (
        [1.0] * len(views),
        _octaves([view.rows for view in views]),
        [2 * (v.loss - now) if v.loss is not None and now is not None else 0.0 for v in views],
        _centred([view.llm_loss for view in views], 2.0),
        [_log(view.ratio) for view in views],
        [5 * (view.trend or 0.0) for view in views],
        _scaled([view.credit for view in views]),
        _scaled([view.gain for view in views]),
        _octaves([view.cost(seen.plain_steps) for view in views]),
        _octaves(list(step_seconds(seen).values())),
        [min(view.rounds_since, 5) / 5 for view in views],
        [view.failures / max(1, view.failures + view.chosen) for view in views],
    )
    rows = np.clip(np.array(columns, dtype=np.float64).T, -LARGEST, LARGEST)
    means = _mean_benefits(seen, history)
    return {
        view.client: Features(row, own, max(1, seen.plain_steps))
        for view, row, own in zip(views, rows, means, strict=True)
    }


def _mean_benefits(seen: Observation, history: BenefitHistory) -> list[float]:
    means = [history.mean(view.client) for view in seen.clients]
    usual, scale = mean(means), history.scale or 1.0
    scaled = [(usual if own is None else own) / scale for own in means]
    return [max(-LARGEST_MEAN, min(LARGEST_MEAN, value)) for value in scaled]


def _log(value: float | None) -> float:
    return math.log(value) if value is not None and 0 < value < math.inf else 0.0


def _octaves(values: list[float]) -> list[float]:
    """Return log2 of each client's number over their mean; 0 where one of them is 0."""
    usual = mean(values)
    return [math.log2(v) - math.log2(usual) if min(v, usual) > 0 else 0.0 for v in values]


def _centred(values: list[float | None], times: float) -> list[float]:
    """Return each client's number less their mean; 0 where it is unknown."""
    usual = mean(values)
    return [0.0 if value is None else times * (value - usual) for value in values]


def _scaled(values: list[float | None]) -> list[float]:
    """Return each client's number over their mean size; 0 where it is unknown."""
    size = mean(abs(value) for value in values if value is not None)
    return [value / size if value is not None and size > 0 else 0.0 for value in values]


# --- what agents that weigh cost have in common ---


def plain_steps(seen: Observation, multiple: float = 1.0) -> int:
    """Return the steps of so many plain rounds, within their bounds."""
    return max(seen.min_steps, min(seen.max_steps, round(multiple * seen.plain_steps)))


def everybody(seen: Observation) -> Decision:
    """Decide the first round: everybody trains as in plain federated learning."""
    steps = {view.client: plain_steps(seen) for view in seen.clients}
    return Decision.to_train(steps, "first round: everybody is tried")


def while_it_pays(
    decision: Decision, gained: float | None, cost: float, rounds: str = "the last round"
) -> Decision:
    """Turn a decision into a stop if the last rounds improved by less than it would cost."""
    if gained is None or gained >= cost:
        return decision
    reason = f"{rounds} improved by {gained:.5f} nats, the next would cost {cost:.5f}"
    return decision.model_copy(update={"stop": True, "reason": reason})
