"""Which exact engine runs a circuit."""

from __future__ import annotations

from typing import Literal

from quantum.circuit import Circuit
from quantum.engines.base import Engine
from quantum.engines.exact.engine import ExactEngine
from quantum.engines.exact.fusion import can_fuse
from quantum.engines.exact.gate_by_gate import GateByGateEngine


def open_exact(
    circuit: Circuit,
    precision: Literal["single", "double"] = "single",
    device: Literal["auto", "cpu", "cuda"] = "cpu",
) -> Engine:
    """Open the fused engine where it can run the circuit, else the one that goes gate by gate.

    Parameters, attributes and errors are those of `ExactEngine`.
    """
    kind = ExactEngine if can_fuse(circuit) else GateByGateEngine
    engine: Engine = kind(circuit, precision, device)
    return engine
