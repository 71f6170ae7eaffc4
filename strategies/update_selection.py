"""Which updates count in a round, what each was worth, and when too few are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord

from core import Settings, UserError
from core.messages import pack_parameters
from core.settings.secure import quorum
from strategies.aggregation import aggregate
from strategies.aggregators import Aggregator, Contribution, TooFewError
from strategies.credit import Credit, Part, credits
from strategies.group_credit import MOST_ROUNDS, GroupRound, credited_views, measured
from strategies.grouping import Group
from strategies.layerwise import filled
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


def credit_round(
    now: Round,
    settings: Settings,
    state: FederationState,
    loss_of: Callable[[ArrayRecord], float] | None,
    after: ArrayRecord,
    aggregator: Aggregator,
    reference: Arrays,
) -> None:
    """Note what a round's clients were worth: by their models, or from sums of their groups.

    Parameters are those of `model_credits`; ``loss_of`` None: there is no credit.
    """
    if now.groups:
        evaluator = (
            PartEvaluator(settings, now.number, loss_of, aggregator, reference) if loss_of else None
        )
        record_groups(now, now.opened, state, evaluator, after)
    elif loss_of:
        rule = aggregator, reference
        state.credited(model_credits(now, settings, state, loss_of, after, *rule))


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
    weighting = settings.aggregation.weighting
    parts = {u.client: u.weighing(state.weights[u.client], weighting) for u in now.counted}
    evaluator = PartEvaluator(settings, now.number, loss_of, aggregator, reference)
    return evaluator.credits(parts, loss_of(pack_parameters(dict(reference))), loss_of(after))


def record_groups(
    now: Round,
    parts: Mapping[Group, Contribution],
    state: FederationState,
    evaluator: PartEvaluator | None,
    after: ArrayRecord,
) -> None:
    """Note a round's groups and, where the server evaluates, what its clients were worth.

    Parameters
    ----------
    now : Round
        The round, aggregated.
    parts : mapping
        What was aggregated: the weighted mean of each group, by its clients.
    state : FederationState
        Is changed: its ``group_rounds`` and what is known of clients.
    evaluator : PartEvaluator or None
        Evaluates groups; None: there is no credit, and the groups alone are noted.
    after : ArrayRecord
        The round's aggregate.
    """
    if evaluator is None:
        one = GroupRound(tuple(sorted(parts)))
    else:
        found = evaluator.credits(parts, None, evaluator.loss_of(after)) if len(parts) > 1 else {}
        credits = {group: found[group].credit if found else 0.0 for group in parts}
        weights = {group: float(part.weight) for group, part in parts.items()}
        one = measured(credits, weights, state.group_rounds)
    rounds = [*state.group_rounds, one][-MOST_ROUNDS:]
    known = credited_views(state.views, rounds, state.weights) if evaluator else state.views
    state.grouped(rounds, known)


@dataclass(frozen=True)
class PartEvaluator:
    """Evaluates what each part of a round's aggregate contributed: clients' models, or groups'.

    Attributes
    ----------
    settings : Settings
        The run's settings: how models are aggregated.
    number : int
        The round.
    loss_of : callable
        Validation loss at the server of any parameters, nats.
    aggregator : Aggregator
        The rule as it was before the round; it is not changed.
    reference : mapping
        The round's global arrays.
    """

    settings: Settings
    number: int
    loss_of: Callable[[ArrayRecord], float]
    aggregator: Aggregator
    reference: Arrays

    def credits(
        self, parts: Mapping[Part, Contribution], before: float | None, after: float
    ) -> dict[Part, Credit]:
        """Evaluate the parts; losses before and after the round as of `strategies.credit`."""

        def without(keys: list[Part]) -> ArrayRecord | None:
            chosen = [parts[key] for key in keys]
            args = self.number, chosen, self.aggregator.copy(), self.reference
            try:
                return aggregate(self.settings, *args).arrays
            except TooFewError:
                return None

        models = {k: pack_parameters(filled(p.arrays, self.reference)) for k, p in parts.items()}
        return credits(models, without, self.loss_of, before, after)


def may_lose(now: Round, state: FederationState, settings: Settings) -> bool:
    """Say whether a round without enough replies is lost, and not the run.

    So it is while a client is left that had no part in it, or under secure aggregation, whose sums
    may fail to open, while as many are left as a sum needs; `MOST_LOST` times in a row at most. A
    last round is lost only where there is a model to keep.
    """
    others = set(state.views) - state.absent - set(now.decision.participants)
    later = bool(state.losses) or now.number < settings.run.rounds
    secure = settings.privacy.secure_aggregation and len(state.views) >= quorum(settings)
    again = bool(others) or secure
    return again and later and state.lost < MOST_LOST


def not_evaluated(now: Round) -> UserError:
    """Return the error of a round that no client could evaluate."""
    return UserError(
        f"round {now.number} could not be evaluated "
        f"({'; '.join(now.failures) or 'no validation rows'})",
        "validation rows at the server or at a client",
        "check those clients or raise data.val_fraction",
    )
