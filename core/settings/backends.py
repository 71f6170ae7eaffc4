"""The names of quantum backends: what may stand in `quantum.backend`, and which client gets which.

Text only: what a name needs to run is known to `quantum`.
"""

from __future__ import annotations

import re

from core.settings.declare import Condition, Conditions

ACCEPTED = (
    "exact, pennylane:<device>, aer, aer:<fake or real IBM backend>, fake:<IBM backend>, "
    "ibm:<backend>, ibm:least_busy; one for all clients, or one for each, comma-separated"
)
"""What `quantum.backend` takes, in words."""

KNOWN = re.compile("exact|aer|(pennylane|aer|fake|ibm):.+")

SHOT_BASED = ("aer", "fake", "ibm")
"""Families whose expectations come from counted shots, through a primitive."""

SIMULATED = ("exact", "aer", "fake")
"""Families that are simulators."""

SIMULATORS = ("default.", "lightning.", "null.", "reference.", "qiskit.aer", "qiskit.basicsim")
"""How the names of PennyLane's simulators begin; any other device may be hardware."""


def is_simulated(backend: str) -> bool:
    """Whether a backend simulates its circuits: no quantum device runs them."""
    kind, _, name = backend.partition(":")
    return kind in SIMULATED or (kind == "pennylane" and name.startswith(SIMULATORS))


def backend_names(text: str) -> tuple[str, ...]:
    """Split `quantum.backend` into its names: one, or one a client."""
    return tuple(name.strip() for name in text.split(","))


def backend_of(text: str, client: int) -> str:
    """Return the backend of a client: the one for all, or its own in order of the clients."""
    names = backend_names(text)
    return names[0] if len(names) == 1 else names[client]


def family(backend: str) -> str:
    """Return what comes before the colon: exact, pennylane, aer, fake or ibm."""
    return backend.partition(":")[0]


def is_shot_based(backend: str) -> bool:
    """Whether a backend counts shots through a primitive (Aer, fake and IBM backends)."""
    return family(backend) in SHOT_BASED


def local_optimizer(optimizer: str, backend: str) -> str:
    """Return the optimiser that `train.optimizer` means on a backend."""
    if optimizer != "auto":
        return optimizer
    return "spsa" if is_shot_based(backend) else "adam"


def backend_is(*starts: str) -> Conditions:
    """Require that some client's backend has a name that starts in one of these ways."""
    accepted = " or ".join(f"`{start}{'…' * start.endswith(':')}`" for start in starts)

    def holds(backend: str) -> bool:
        return any(name.startswith(starts) for name in backend_names(backend))

    return (Condition("quantum.backend", holds, accepted),)


EXACT = backend_is("exact")
PENNYLANE = backend_is("pennylane:")
SHOTS = backend_is("aer", "fake:", "ibm:")
DEVICE = backend_is("aer", "fake:", "ibm:", "pennylane:")
RUNTIME = backend_is("fake:", "ibm:")
IBM = backend_is("ibm:")
