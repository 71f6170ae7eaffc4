"""Which updates count in a round, what each was worth, and when too few are left."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ArrayRecord

from core import Settings, UserError
from core.messages import pack_parameters
from strategies.aggregation import aggregate
from strategies.aggregators import Aggregator, TooFewError
from strategies.credit import Credit, credits
from strategies.regulation import closest, distances
from strategies.state import FederationState
from strategies.update_validation import Round, Update
from strategies.updates import Arrays

MOST_LOST = 2
"""Rounds in a row that may be lost for want of replies before the run ends."""


def select(updates: list[Update], settings: Settings, state: FederationState) -> list[Update]:
    """Select the closest updates, where selection acts at the aggregation stage."""
    agent = settings.agent
    known = updates and state.losses
    if agent.stage != "aggregation" or not known:
        return updates
    gaps = distances({u.client: u.report.loss for u in updates}, state.losses[-1])
    chosen = set(closest(gaps, agent.fraction))
    return [update for update in updates if update.client in chosen]


def model_credits(
    now: Round,
    settings: Settings,
    state: FederationState,
    loss_of: Callable[[ArrayRecord], float],
    after: ArrayRecord,
    aggregator: Aggregator,
    reference: Arrays,
) -> dict[int, Credit]:
    """Evaluate what each aggregated model of a round contributed.

    Parameters
    ----------
    now : Round
        The round, aggregated.
    settings : Settings
        The run's settings: how models are aggregated.
    state : FederationState
        The rows that clients weigh.
    loss_of : callable
        Validation loss at the server of any parameters, nats, weighted as sites weigh classes.
    after : ArrayRecord
        The round's aggregate.
    aggregator : Aggregator
        The rule as it was before the round; it is not changed.
    reference : mapping
        The round's global arrays.
    """
    updates = {update.client: update for update in now.counted}

    def without(clients: list[int]) -> ArrayRecord | None:
        weighting = settings.aggregation.weighting
        parts = [updates[client].weighing(state.weights[client], weighting) for client in clients]
        try:
            found = aggregate(settings, now.number, parts, aggregator.copy(), reference)
        except TooFewError:
            return None
        return found.arrays

    models = {client: pack_parameters(update.arrays) for client, update in updates.items()}
    before = loss_of(pack_parameters(dict(reference)))
    return credits(models, without, loss_of, before, loss_of(after))


def may_lose(now: Round, state: FederationState, settings: Settings) -> bool:
    """Say whether a round without enough replies is lost, and not the run.

    So it is while a client is left that had no part in it, `MOST_LOST` times in a row at most; a
    last round is lost only where there is a model to keep.
    """
    others = set(state.views) - state.absent - set(now.decision.participants)
    later = bool(state.losses) or now.number < settings.run.rounds
    return bool(others) and later and state.lost < MOST_LOST


def not_evaluated(now: Round) -> UserError:
    """Return the error of a round that no client could evaluate."""
    return UserError(
        f"round {now.number} could not be evaluated "
        f"({'; '.join(now.failures) or 'no validation rows'})",
        "validation rows at the server or at a client",
        "check those clients or raise data.val_fraction",
    )
