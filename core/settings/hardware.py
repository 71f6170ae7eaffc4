"""Settings of backends that count shots: Aer, fake and IBM backends."""

from __future__ import annotations

import math
from typing import Literal

from core.settings.declare import Section, setting

SHOTS = ("quantum.backend", "^aer|fake:|ibm:")
DEVICE = ("quantum.backend", "^aer|fake:|ibm:|pennylane:")
RUNTIME = ("quantum.backend", "^fake:|ibm:")
IBM = ("quantum.backend", "^ibm:")
DEFAULT_SHOTS = 1024


class HardwareSettings(Section):
    """How circuits run on Aer, on fake and on IBM backends, and what they may cost a node."""

    shots: int = setting(
        0,
        "Shots of a circuit; 0: 1,024, and exact expectations on a PennyLane device.",
        used_when=(DEVICE,),
        per_node=True,
        ge=0,
        le=1_000_000,
    )
    precision: float = setting(
        0.0,
        "Target standard error of an expectation instead of shots: 1 / precision² of them; 0: off.",
        used_when=(SHOTS, ("hardware.shots", (0,))),
        per_node=True,
        ge=0,
        lt=1,
    )
    optimization_level: int = setting(
        3, "Transpiler's optimisation level.", used_when=(SHOTS,), per_node=True, ge=0, le=3
    )
    layout_trials: int = setting(
        8,
        "Seeds that the transpiler tries, once per backend; the lowest estimated error is kept.",
        used_when=(SHOTS,),
        per_node=True,
        ge=1,
        le=200,
    )
    resilience_level: int = setting(
        1,
        "Error mitigation of IBM's Estimator: 0 none, 1 read-out, 2 read-out and extrapolation.",
        used_when=(IBM,),
        per_node=True,
        ge=0,
        le=2,
    )
    twirling: bool = setting(
        False, "Pauli twirling of two-qubit gates.", used_when=(IBM,), per_node=True
    )
    dynamical_decoupling: Literal["none", "XX", "XpXm", "XY4"] = setting(
        "none", "Pulse sequence on idle qubits.", used_when=(IBM,), per_node=True
    )
    execution: Literal["job", "batch", "session"] = setting(
        "job",
        "Submit single jobs, or those of one order to a node within a batch or session.",
        used_when=(RUNTIME,),
        per_node=True,
    )
    account: str = setting(
        "",
        "Name of the account saved by qiskit-ibm-runtime; empty: its default or environment.",
        used_when=(("quantum.backend", "^ibm:|aer:ibm"),),
        per_node=True,
    )
    job_circuits: int = setting(
        0,
        "Most parameter sets of one job; 0: the backend's own limit.",
        used_when=(SHOTS,),
        per_node=True,
        ge=0,
    )
    job_timeout: float = setting(
        0.0,
        "Longest wait for one job with its queue, seconds, then it is cancelled; 0: "
        "`run.round_timeout`.",
        used_when=(RUNTIME,),
        per_node=True,
        ge=0,
    )
    retries: int = setting(
        6,
        "Tries after a transient error, waiting twice as long each time.",
        used_when=(RUNTIME,),
        per_node=True,
        ge=0,
        le=20,
    )
    budget_jobs: int = setting(
        0, "Most jobs of a node in a run; 0: off.", used_when=(SHOTS,), per_node=True, ge=0
    )
    budget_circuits: int = setting(
        0, "Most circuits of a node in a run; 0: off.", used_when=(SHOTS,), per_node=True, ge=0
    )
    budget_shots: int = setting(
        0, "Most shots of a node in a run; 0: off.", used_when=(SHOTS,), per_node=True, ge=0
    )
    budget_qpu_seconds: float = setting(
        0.0,
        "Most QPU seconds of a node in a run, estimated before each job; 0: off.",
        used_when=(IBM,),
        per_node=True,
        ge=0,
    )

    qpu_price: float = setting(
        0.0,
        "Price of a QPU second, in any money: estimates are priced with it; 0: they are not.",
        used_when=(SHOTS,),
        ge=0,
    )

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
