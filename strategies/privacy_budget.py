"""How often updates have left the sites, and when the privacy budget ends a run."""

from __future__ import annotations

from core import Settings, SettingsError, selection_size
from core.accounting import Releases, epsilon_of
from core.settings.derived import agent_declares
from strategies.decisions import Decision
from strategies.state import FederationState

DRAWN = "fixed-size without replacement"
"""What an agent declares as `samples` if chance alone chooses its participants, from a generator
whose seed nobody at the sites knows."""


def may_claim_draws(settings: Settings) -> bool:
    """Whether sampling lowers epsilon: the server alone noises, and chance alone chooses."""
    return (
        settings.privacy.dp == "central"
        and settings.agent.leave_out == "freely"
        and agent_declares(settings, "samples", "") == DRAWN
    )


def after_round(
    settings: Settings, state: FederationState, releases: Releases, decision: Decision
) -> Releases:
    """Return the releases once a round's messages have gone out.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    state : FederationState
        Whom the round could have chosen from: of fewer than all a larger share is drawn.
    releases : Releases
        Of the rounds before.
    decision : Decision
        Who trains, and for how many steps.
    """
    if settings.privacy.unit == "row":
        return Releases(releases.count + max(decision.steps.values(), default=0))
    size = selection_size(settings.run.clients, settings.agent.fraction)
    there = state.views.keys() - state.absent - state.resting
    everybody = len(there) == settings.run.clients
    drawn = everybody and len(decision.participants) == size and may_claim_draws(settings)
    return Releases(releases.count + 1, releases.drawn + drawn)


def passes_budget(settings: Settings, after: Releases, server_round: int) -> str:
    """Say that a round would pass `privacy.max_epsilon`, with both figures; empty: it would not."""
    limit = settings.privacy.max_epsilon
    if not limit or (spent := epsilon_of(settings, after)) <= limit:
        return ""
    return f"{_passing(server_round)}{spent:.3g} of privacy.max_epsilon {limit:g}"


def _passing(server_round: int) -> str:
    return f"round {server_round} would spend epsilon "


def ended_by_budget(settings: Settings, reason: str, server_round: int) -> bool:
    """Whether a recorded stop is that of `passes_budget`, whatever the agent had decided."""
    return settings.privacy.max_epsilon > 0 and reason.startswith(_passing(server_round))


def affordable(
    settings: Settings,
    state: FederationState,
    releases: Releases,
    decision: Decision,
    server_round: int,
) -> Decision:
    """Return a round's decision, or to stop where the round would pass the privacy budget."""
    after = after_round(settings, state, releases, decision)
    reason = "" if decision.stop else passes_budget(settings, after, server_round)
    return Decision.to_stop(reason) if reason else decision


def check_first_round(settings: Settings) -> None:
    """Refuse a budget that its first round would pass, before a site has sent anything.

    Raises
    ------
    SettingsError
        With both figures.
    """
    privacy = settings.privacy
    if not privacy.max_epsilon:
        return
    first = Releases(settings.train.steps if privacy.unit == "row" else 1)
    if reason := passes_budget(settings, first, 1):
        raise SettingsError(
            f"privacy.max_epsilon = {privacy.max_epsilon:g}: {reason}",
            "a budget that pays for a round",
            "raise privacy.noise, or privacy.max_epsilon",
        )
