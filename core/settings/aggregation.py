"""Settings of the server: how updates are aggregated, and where the model is evaluated."""

from __future__ import annotations

import difflib
import functools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from core import registry
from core.errors import SettingsError
from core.settings.declare import Condition, Section, setting, used_by, when

UNCLIPPED = when("privacy.dp", "none", "local", "summed")

SEVERAL = (
    Condition(
        "privacy.secure_aggregation",
        lambda secure: not secure,
        "`false` (else each site shortens its own update: aggregation.max_norm)",
        or_else=Condition("privacy.group_size", bool, "3 or more: it is of groups"),
    ),
)
"""What holds updates against each other needs several."""

FLOWERS_MEANS = ("FedAvg", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi")
"""Strategies of Flower's that look at the mean of the updates only."""

WITH_OPTIONS = Condition(
    "aggregation.rule",
    lambda rule: rule not in registry.shipped("aggregation"),
    "a strategy of Flower's or a class of your own, whose arguments they are",
)

UNWEIGHTED = ("Bulyan", "FedMedian", "FedTrimmedAvg", "Krum")
"""Strategies of Flower's whose parameters no weight changes."""


def _weighs(rule: str) -> bool:
    return rule not in UNWEIGHTED and bool(registry.declared("aggregation", rule, "weighs", True))


WEIGHING = (Condition("aggregation.rule", _weighs, "one that weighs updates"),)


class AggregationSettings(Section):
    """How updates become the next global parameters."""

    rule: str = setting("weighted", point="aggregation")
    """Mean weighted by rows, the paper's plain mean, or a robust rule; a strategy of Flower's by
    its class, for instance `FedAdam`; or one of your own. See docs/extending/aggregation.md."""
    options: str = setting("", applies_when=(WITH_OPTIONS,))
    """Arguments of a strategy of Flower's or of a class of your own: `eta=0.01,tau=0.001`."""
    trim: float = setting(
        0.2, applies_when=used_by("aggregation", "aggregation.trim"), gt=0, lt=0.5
    )
    """Share trimmed from each end, or for krum of updates that may be forged; of three or more
    updates at least one."""
    max_norm: float = setting(100.0, applies_when=UNCLIPPED, gt=0)
    """An update (difference to the global parameters) of larger 2-norm is dropped; under secure
    aggregation the site shortens it, and a group whose sum is longer than such can be is dropped.
    """
    norm_ratio: float = setting(5.0, applies_when=UNCLIPPED + SEVERAL, ge=3)
    """So is one of a 2-norm above this many times the median of the round's updates (times its
    steps over the median steps, where it was given more)."""
    clip_radius: float = setting(2.0, applies_when=UNCLIPPED + SEVERAL, ge=1)
    """An update further from the round's coordinate-wise median than this many times the median
    distance is moved that near (centred clipping)."""
    weighting: Literal["rows", "noise"] = setting("rows", applies_when=WEIGHING)
    """What an update weighs: the rows of its site, or of these the part, 0.05 to 1, that the site
    finds its device worth beside an exact simulator, by the estimated error of its circuit and the
    noise of its gradient estimates. See docs/backends.md."""
    max_weight: float = setting(3.0, ge=1)
    """Most rows that a site counts for, as a multiple of the median site's: in weights of updates,
    evaluations and moments, and in class weights. Sites declare their own rows."""


class EvaluationSettings(Section):
    """Where the global model is evaluated."""

    mode: Literal["central", "federated"] = setting("central")
    """Validation and test rows at the server, or at every node."""
    test: bool = setting(True)
    """Score the final model on the test rows, once. A search leaves them alone until it has found
    its best settings."""
    baselines: bool = setting(True, applies_when=when("evaluation.test", True))
    """Score majority class and logistic regressions beside the quantum model; with evaluation.mode
    = federated each site's own regression, where each holds every class."""
    backend: str = setting("exact", applies_when=when("evaluation.mode", "central"))
    """Backend that the server evaluates on: the exact simulator, which costs no circuits, or one
    that `quantum.backend` names."""
    keep: Literal["average", "best", "last"] = setting("average")
    """Final model: the round of lowest validation loss, or the last. average: the mean of the last
    rounds' parameters where its validation loss is not above that of the best round, else that
    round; where evaluation is federated it costs one evaluation more, if the budgets pay for it."""
    prior_correction: Literal["auto", "none"] = setting(
        "auto", applies_when=when("evaluation.mode", "central"), formerly="none"
    )
    """auto: shift the final model's class logits so that the class-weighted validation loss is
    lowest, where cross-validation finds it better by more than one standard error."""


UNUSABLE = {
    "FedProx": "its proximal term is part of the sites' training, which this app does not have",
    "FedXgbBagging": "it aggregates trees",
    "FedXgbCyclic": "it aggregates trees",
    "Differential": "set privacy.dp for clipping and noise",
}
"""Strategies of Flower's, by how their name begins, that would not do here what they promise."""


@functools.cache
def flower_rules() -> tuple[str, ...]:
    """Return the names of Flower's strategies that aggregate; Flower itself is not imported."""
    flower = find_spec("flwr")
    if flower is None or flower.origin is None:
        return ()
    door = Path(flower.origin).parent / "serverapp" / "strategy" / "__init__.py"
    found = re.findall(r'^    "(\w+)",$', door.read_text(encoding="utf-8"), flags=re.M)
    return tuple(name for name in found if name not in ("Result", "Strategy"))


def takes_mean(rule: str) -> bool:
    """Whether a rule makes of updates and weights what it makes of their weighted mean alone."""
    if rule in flower_rules() and rule not in registry.names("aggregation"):
        return rule in FLOWERS_MEANS
    return bool(registry.declared("aggregation", rule, "of_mean", False))


def check_rule(rule: str) -> None:
    """Refuse a name that no aggregation has, and strategies that cannot aggregate here.

    Raises
    ------
    SettingsError
        With the names that there are.
    """
    ours, flowers = registry.names("aggregation"), flower_rules()
    why = next((text for name, text in UNUSABLE.items() if rule.startswith(name)), "")
    if registry.OWN_FILE.fullmatch(rule) or rule in ours or (rule in flowers and not why):
        return
    usable = [name for name in flowers if not name.startswith(tuple(UNUSABLE))]
    near = difflib.get_close_matches(rule, [*ours, *usable], n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else "change aggregation.rule"
    reason = f" ({why})" if why and rule in flowers else ""
    accepted = f"{', '.join([*ours, *usable])}, or module:attribute of a file of yours"
    raise SettingsError(f"aggregation.rule = {rule!r}{reason}", accepted, fix)
