"""The quantum classifier: ansaetze, engines, losses, local training.

This door imports light: names from modules that need torch or PennyLane load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door
from quantum.circuit.trace import build_ansatz, trace_ansatz
from quantum.costs import (
    NO_COST,
    CircuitCost,
    check_shifts,
    circuits_before_steps,
    circuits_per_step,
    metered,
)
from quantum.layerwise import depths, first_layers

if TYPE_CHECKING:
    from quantum.classifier import Classifier, build_classifier
    from quantum.engines.base import DeviceEngine, EncodedRows, Engine, Host, Usage
    from quantum.engines.factory import build_engine, check_backend
    from quantum.export import circuit_as, observables_as
    from quantum.head import head_of
    from quantum.losses import cross_entropy, distillation, distilled_loss, proximal_term
    from quantum.training.compiled import load_compiled
    from quantum.training.local import evaluate, train_local, train_together
    from quantum.training.task import RowPrivacy, TrainingData, TrainResult, TrainTask

__getattr__ = lazy_door(
    __name__,
    {
        "quantum.export": "circuit_as observables_as",
        "quantum.classifier": "Classifier build_classifier",
        "quantum.engines.base": "DeviceEngine Engine Host EncodedRows Usage",
        "quantum.engines.factory": "build_engine check_backend",
        "quantum.head": "head_of",
        "quantum.losses": "cross_entropy distillation distilled_loss proximal_term",
        "quantum.training.compiled": "load_compiled",
        "quantum.training.local": "evaluate train_local train_together",
        "quantum.training.task": "RowPrivacy TrainingData TrainResult TrainTask",
    },
)
