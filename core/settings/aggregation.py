"""Settings of the server: how updates are aggregated, and where the model is evaluated."""

from __future__ import annotations

from typing import Literal

from core.settings.declare import Section, setting, when

UNCLIPPED = when("privacy.dp", "none", "local")


class AggregationSettings(Section):
    """How updates become the next global parameters."""

    rule: Literal["weighted", "uniform", "median", "trimmed-mean", "krum"] = setting("weighted")
    """Mean weighted by rows, the paper's plain mean, or a robust rule."""
    trim: float = setting(
        0.2, applies_when=when("aggregation.rule", "trimmed-mean", "krum"), gt=0, lt=0.5
    )
    """Share trimmed from each end, or for krum of updates that may be forged; of three or more
    updates at least one."""
    max_norm: float = setting(100.0, applies_when=UNCLIPPED, gt=0)
    """An update (difference to the global parameters) of larger 2-norm is dropped."""
    norm_ratio: float = setting(5.0, applies_when=UNCLIPPED, ge=3)
    """So is one of a 2-norm above this many times the median of the round's updates (times its
    steps over the median steps, where it was given more)."""
    clip_radius: float = setting(2.0, applies_when=UNCLIPPED, ge=1)
    """An update further from the round's coordinate-wise median than this many times the median
    distance is moved that near (centred clipping)."""
    max_weight: float = setting(3.0, ge=1)
    """Most rows that a site counts for, as a multiple of the median site's: in weights of updates,
    evaluations and moments, and in class weights. Sites declare their own rows."""


class EvaluationSettings(Section):
    """Where the global model is evaluated."""

    mode: Literal["central", "federated"] = setting("central")
    """Validation and test rows at the server, or at every node."""
    baselines: bool = setting(True)
    """Score majority class and logistic regressions beside the quantum model; with evaluation.mode
    = federated each site's own regression, where each holds every class."""
    backend: str = setting("exact", applies_when=when("evaluation.mode", "central"))
    """Backend that the server evaluates on: the exact simulator, which costs no circuits, or one
    that `quantum.backend` names."""
    keep: Literal["best", "last"] = setting("best")
    """Final model: the round of lowest validation loss, or the last."""
