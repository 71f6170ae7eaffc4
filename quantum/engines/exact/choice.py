"""Which exact engine runs a circuit."""

from __future__ import annotations

from typing import Literal

from quantum.circuit import Circuit
from quantum.engines.base import Engine
from quantum.engines.exact.fusion import can_fuse
from quantum.engines.pauli import PauliEngine, can_run


def open_exact(
    circuit: Circuit,
    precision: Literal["single", "double"] = "single",
    device: Literal["auto", "cpu", "cuda"] = "cpu",
) -> Engine:
    """Open the quickest engine that can run the circuit.

    Small circuits are rotations of Pauli coefficients, in double precision, on the CPU unless CUDA
    is asked for. Others are fused state vectors, or go gate by gate. Parameters, attributes and
    errors are those of `ExactEngine`.
    """
    if device != "cuda" and can_run(circuit):
        return PauliEngine(circuit)
    # The others need torch.
    from quantum.engines.exact.engine import ExactEngine
    from quantum.engines.exact.gate_by_gate import GateByGateEngine

    kind = ExactEngine if can_fuse(circuit) else GateByGateEngine
    engine: Engine = kind(circuit, precision, device)
    return engine
