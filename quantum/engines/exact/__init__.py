"""The exact engine: batched state vectors in torch, planned once per ansatz.

`docs/engine.md` explains it by one picture a step; `reference` is the plain version to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

if TYPE_CHECKING:
    from quantum.engines.exact.choice import open_exact
    from quantum.engines.exact.engine import EncodedStates, ExactEngine
    from quantum.engines.exact.gate_by_gate import GateByGateEngine
    from quantum.engines.exact.reference import reference_expectations

__getattr__ = lazy_door(
    __name__,
    {
        "quantum.engines.exact.choice": "open_exact",
        "quantum.engines.exact.gate_by_gate": "GateByGateEngine",
        "quantum.engines.exact.engine": "EncodedStates ExactEngine",
        "quantum.engines.exact.reference": "reference_expectations",
    },
)
