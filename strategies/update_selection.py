"""Whose update counts in a round, and what it was worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flwr.app import ArrayRecord

from core import Settings, explain
from core.messages import ARRAYS, Parameters, read_parameters
from strategies.aggregation import aggregate, update_norm
from strategies.credit import Credit, credits
from strategies.robust import longest_norms
from strategies.selection import closest, distances
from strategies.state import FederationState
from strategies.update_validation import Round, Update

MOST_LOST = 2
"""Rounds in a row that may be lost for want of replies before the run ends."""


def drop_long(now: Round, reference: Parameters, settings: Settings) -> None:
    """Drop the round's updates that are much longer than most; of two neither is.

    Under central privacy none is dropped (`longest_update`).

    Parameters
    ----------
    now : Round
        The round, its updates collected; what is dropped is noted there.
    reference : dict of arrays
        The round's global parameters.
    settings : Settings
        The run's settings.
    """
    if settings.privacy.dp == "central":
        return
    ratio = settings.aggregation.norm_ratio
    valid = [one for _, one in sorted(now.updates.items()) if not one.dropped]
    norms = [update_norm(read_parameters(one.message), reference) for one in valid]
    bounds = longest_norms(norms, [now.decision.steps[one.client] for one in valid], ratio)
    for one, norm, bound in zip(valid, norms, bounds, strict=True):
        if norm > bound:
            why = f"norm {norm:.3g} of the update is above {bound:.3g}, {ratio:g} times the median"
            now.updates[one.client] = replace(one, dropped=why)
            now.fail(one.client, f"update dropped: {why}")


def select(updates: list[Update], settings: Settings, state: FederationState) -> list[Update]:
    """Keep the closest updates, where selection acts at the aggregation stage."""
    agent = settings.agent
    known = updates and state.losses
    if agent.kind != "rule" or agent.stage != "aggregation" or not known:
        return updates
    gaps = distances({u.client: u.report.loss for u in updates}, state.losses[-1])
    return [u for u in updates if u.client in closest(gaps, agent.fraction)]


def worth(
    now: Round,
    settings: Settings,
    state: FederationState,
    score: Callable[[ArrayRecord], float],
    after: float,
) -> dict[int, Credit]:
    """Judge what each aggregated model of a round was worth.

    Parameters
    ----------
    now : Round
        The round, aggregated.
    settings : Settings
        The run's settings: how models are aggregated.
    state : FederationState
        The loss before the round.
    score : callable
        Validation loss at the server of any parameters.
    after : float
        That of the round's aggregate.
    """
    messages = {update.client: update.message for update in now.counted}

    def of(clients: list[int]) -> ArrayRecord:
        kept = [messages[client] for client in clients]
        arrays, _ = aggregate(settings, now.number, kept, quiet=True)
        return arrays if arrays is not None else ArrayRecord()

    models = {k: message.content.array_records[ARRAYS] for k, message in messages.items()}
    before = state.losses[-1] if state.losses else state.start_loss
    return credits(models, of, score, before, after)


def may_lose(now: Round, state: FederationState, settings: Settings) -> bool:
    """Say whether a round without enough replies is lost, and not the run.

    So it is while somebody is left whom it did not ask, `MOST_LOST` times in a row at most; a
    last round is lost only where there is a model to keep.
    """
    others = set(state.views) - state.absent - set(now.decision.participants)
    later = bool(state.losses) or now.number < settings.run.rounds
    return bool(others) and later and state.lost < MOST_LOST


def too_few(now: Round, valid: int, quorum: int) -> str:
    """Say that a round has too few replies to be aggregated."""
    return explain(
        f"round {now.number} has {valid} valid replies of {len(now.decision.participants)} "
        f"({'; '.join(now.failures) or 'no failure reported'})",
        f"at least run.min_replies = {quorum}",
        "mend those clients or lower run.min_replies",
    )


def not_judged(now: Round) -> str:
    """Say that nobody could evaluate a round."""
    return explain(
        f"round {now.number} could not be evaluated "
        f"({'; '.join(now.failures) or 'no validation rows'})",
        "validation rows at the server or at a client",
        "mend those clients or raise data.val_fraction",
    )
