"""Settings of backends that count shots: Aer, fake and IBM backends."""

from __future__ import annotations

import math
from typing import Literal

from core.settings.backends import DEVICE, IBM, RUNTIME, SHOTS, backend_is
from core.settings.declare import Section, setting, when

DEFAULT_SHOTS = 1024


class HardwareSettings(Section):
    """How circuits run on Aer, on fake and on IBM backends, and what they may cost a node."""

    shots: int = setting(0, applies_when=DEVICE, per_node=True, ge=0, le=1_000_000)
    """Shots of a circuit; 0: 1,024, and exact expectations on a PennyLane device."""
    precision: float = setting(
        0.0, applies_when=SHOTS + when("hardware.shots", 0), per_node=True, ge=0, lt=1
    )
    """Target standard error of an expectation instead of shots: 1 / precision² of them; 0: off."""
    optimization_level: int = setting(3, applies_when=SHOTS, per_node=True, ge=0, le=3)
    """Transpiler's optimisation level."""
    layout_trials: int = setting(8, applies_when=SHOTS, per_node=True, ge=1, le=200)
    """Seeds that the transpiler tries, once per backend; the lowest estimated error is kept."""
    resilience_level: int = setting(1, applies_when=IBM, per_node=True, ge=0, le=2)
    """Error mitigation of IBM's Estimator: 0 none, 1 read-out, 2 read-out and extrapolation."""
    twirling: bool = setting(False, applies_when=IBM, per_node=True)
    """Pauli twirling of two-qubit gates."""
    dynamical_decoupling: Literal["none", "XX", "XpXm", "XY4"] = setting(
        "none", applies_when=IBM, per_node=True
    )
    """Pulse sequence on idle qubits."""
    execution: Literal["job", "batch", "session"] = setting(
        "job", applies_when=RUNTIME, per_node=True
    )
    """Submit single jobs, or those of one message to a node within a batch or session."""
    account: str = setting(
        "", applies_when=backend_is("ibm:", "aer:ibm"), per_node=True, resumable=True
    )
    """Name of the account saved by qiskit-ibm-runtime; empty: its default or environment."""
    job_circuits: int = setting(0, applies_when=SHOTS, per_node=True, ge=0)
    """Most parameter sets of one job; 0: the backend's own limit."""
    job_timeout: float = setting(0.0, applies_when=RUNTIME, per_node=True, ge=0)
    """Longest wait for one job with its queue, seconds, then it is cancelled; 0:
    `run.round_timeout`."""
    retries: int = setting(6, applies_when=RUNTIME, per_node=True, ge=0, le=20)
    """Tries after a transient error, waiting twice as long each time."""
    budget_jobs: int = setting(0, applies_when=SHOTS, per_node=True, ge=0, resumable=True)
    """Most jobs of a node in a run; 0: off."""
    budget_circuits: int = setting(0, applies_when=SHOTS, per_node=True, ge=0, resumable=True)
    """Most circuits of a node in a run; 0: off."""
    budget_shots: int = setting(0, applies_when=SHOTS, per_node=True, ge=0, resumable=True)
    """Most shots of a node in a run; 0: off."""
    budget_qpu_seconds: float = setting(0.0, applies_when=IBM, per_node=True, ge=0, resumable=True)
    """Most QPU seconds of a node in a run, estimated before each job; 0: off."""
    qpu_price: float = setting(0.0, applies_when=SHOTS, ge=0)
    """Price of a QPU second, in any money: estimates are priced with it; 0: they are not."""

    def without_budgets(self) -> HardwareSettings:
        """Return the same without budgets: for the server, which is no node."""
        budgets = [name for name in type(self).model_fields if name.startswith("budget_")]
        return self.model_copy(update=dict.fromkeys(budgets, 0))

    @property
    def budgeted(self) -> bool:
        """Whether any budget holds."""
        return self != self.without_budgets()

    @property
    def circuit_shots(self) -> int:
        """Shots of a circuit on a backend that counts them."""
        if self.precision > 0:
            return math.ceil(1.0 / self.precision**2)
        return self.shots or DEFAULT_SHOTS
