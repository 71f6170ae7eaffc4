"""What secure aggregation excludes, each with what replaces it."""

from __future__ import annotations

from core import registry
from core.errors import SettingsError
from core.settings.aggregation import takes_mean
from core.settings.declare import Condition, Conditions, above, when
from core.settings.derived import agent_declares
from core.settings.privacy import SECURE
from core.settings.schema import Settings

LEAST = 3
"""Fewest members of a sum: of two each knows the other's update."""

NOT_CENTRAL = (
    Condition("privacy.dp", lambda kind: kind != "central", "noise of the sites, not `central`"),
)
NO_ADAPTERS = when("llm.federated", "none")
BEFORE_TRAINING = when("agent.stage", "participation")

REQUIREMENTS: tuple[tuple[Conditions, Conditions, str], ...] = (
    (SECURE, above("run.clients", LEAST - 1), "of two each knows the other's update"),
    (SECURE, NOT_CENTRAL, "the server sees no update that it could clip"),
    (SECURE, NO_ADAPTERS, "adapters would reach the server one by one; quantum updates alone"),
    (SECURE, BEFORE_TRAINING, "what was summed cannot be left out; participants can"),
)
"""As those of `core.settings.checks`."""


def quorum(settings: Settings) -> int:
    """Return how many updates a round needs: ``run.min_replies``, and enough for one group."""
    least = settings.run.min_replies
    if not settings.privacy.secure_aggregation:
        return least
    return max(least, LEAST, settings.privacy.group_size)


def quorum_words(settings: Settings) -> tuple[str, str]:
    """Return how errors name `quorum`, and what else than more clients would do."""
    least, privacy = quorum(settings), settings.privacy
    if least == settings.run.min_replies:
        return f"at least run.min_replies = {least}", " or lower run.min_replies"
    if least == privacy.group_size > LEAST:
        return f"at least privacy.group_size = {least}", " or lower privacy.group_size"
    return f"at least {least}, which a sum of updates needs", ""


def fewest_participants(settings: Settings, solved: bool) -> int:
    """Return how many clients a round is given at least.

    Two groups where an agent lives on their credit and not every participant's is ``solved`` for:
    what one group alone was worth says nothing of its members.
    """
    tells = sees_groups(settings) and agent_declares(settings, "needs_credit") and not solved
    return max(quorum(settings), 2 * settings.privacy.group_size if tells else 0)


def sees_groups(settings: Settings) -> bool:
    """Whether the server sees the sums of several groups, and not one sum only."""
    return settings.privacy.secure_aggregation and settings.privacy.group_size > 0


def shortens(settings: Settings) -> bool:
    """Whether sites shorten their updates to ``aggregation.max_norm``, and the server checks sums.

    Not where the noise of all sites together is made for updates as they are.
    """
    return settings.privacy.dp in ("none", "local")


def check_secure(s: Settings) -> None:
    """Refuse what needs single updates, where the server sees but one sum.

    Raises
    ------
    SettingsError
        One line, with what replaces it.
    """
    if not s.privacy.secure_aggregation or sees_groups(s):
        return
    fix = "set privacy.group_size=3, or change the rule"
    rule = s.aggregation.rule
    if not takes_mean(rule):
        means = [name for name in registry.shipped("aggregation") if takes_mean(name)]
        raise SettingsError(
            f"aggregation.rule = {rule!r} with privacy.secure_aggregation = True",
            f"{', '.join(means)}, a mean of Flower's such as FedAdam, or one that declares "
            "of_mean; with privacy.group_size of 3 or more any rule, on the means of groups",
            fix,
        )
    if agent_declares(s, "needs_credit"):
        raise SettingsError(
            f"agent.kind = {s.agent.kind!r} with privacy.secure_aggregation = True",
            "privacy.group_size of 3 or more: credit is then solved for from sums of groups",
            "set privacy.group_size=3, or change agent.kind",
        )
