"""Settings of local training."""

from __future__ import annotations

from typing import Literal

from core.settings.backends import SHOTS
from core.settings.declare import Section, setting, when


class TrainSettings(Section):
    """Local training of the quantum model."""

    optimizer: Literal["auto", "adam", "parameter-shift", "descent", "spsa", "cobyla"] = setting(
        "auto"
    )
    """Local optimiser: Adam by autograd; Adam by parameter shift; plain gradient descent, by
    parameter shift where shots are counted; SPSA; the paper's COBYLA. auto: SPSA where shots are
    counted (aer, fake, ibm), else Adam."""
    warm_rounds: int = setting(0, applies_when=SHOTS, ge=0)
    """First rounds that train with Adam on the exact simulator and cost no circuits."""
    steps: int = setting(20, ge=1)
    """Optimiser steps of a client in round 1; COBYLA evaluates its start besides."""
    min_steps: int = setting(1, ge=1)
    """Fewest steps that the agent may give."""
    max_steps: int = setting(100, ge=1)
    """Most steps that the agent may give."""
    batch_rows: int = setting(64, ge=0)
    """Rows of a step, drawn again for each (COBYLA: for each round); 0: all."""
    learning_rate: float = setting(
        0.05, applies_when=when("train.schedule", "constant", "plateau"), gt=0
    )
    """Adam's step size, SPSA's first move of an angle, or COBYLA's first trust radius, in radians;
    of descent the factor of the gradient."""
    schedule: Literal["constant", "inverse-time", "plateau"] = setting(
        "plateau",
        applies_when=when("train.optimizer", "auto", "adam", "parameter-shift", "descent"),
    )
    """Learning-rate schedule of Adam and descent. plateau: halved when the server's validation loss
    has not fallen (by `stop.min_gain`) for `train.plateau_rounds`; inverse-time is theorem 6.4's
    2 / (mu (t + gamma))."""
    plateau_rounds: int = setting(1, applies_when=when("train.schedule", "plateau"), ge=1)
    """Rounds without a lower validation loss before the learning rate is halved."""
    perturbation: float = setting(
        0.2, applies_when=when("train.optimizer", "auto", "spsa"), gt=0, le=1.5
    )
    """SPSA's first perturbation of every angle, radians."""
    mu: float = setting(1.0, applies_when=when("train.schedule", "inverse-time"), gt=0)
    """Strong convexity of theorem 6.4."""
    smoothness: float = setting(10.0, applies_when=when("train.schedule", "inverse-time"), gt=0)
    """Smoothness L of theorem 6.4: gamma = max(8 L / mu, E), E = `train.max_steps`."""
    class_weights: Literal["none", "balanced"] = setting("balanced")
    """Weights of the classes in the cross-entropy, from all sites' counts."""
    proximal: float = setting(0.0, ge=0)
    """FedProx: weight of the squared distance to the round's global parameters."""
