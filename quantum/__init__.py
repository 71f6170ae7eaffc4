"""The quantum classifier: ansaetze, engines, losses, local training.

This door imports light: names from modules that need torch or PennyLane load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantum.ansatz.circuits import QCNN, VQC, build_ansatz
from quantum.costs import circuits_before_steps, circuits_per_step

if TYPE_CHECKING:
    from quantum.classifier import Classifier, build_classifier
    from quantum.engines.base import DeviceEngine, Engine, Host, Prepared, Usage
    from quantum.engines.factory import build_engine, check_backend
    from quantum.losses import cross_entropy, distillation, distilled_loss, proximal_term
    from quantum.meter import FREE, Spent, metered
    from quantum.training.local import TrainResult, evaluate, train_local
    from quantum.training.problem import TrainingData

_LAZY = {
    "Classifier": "quantum.classifier",
    "DeviceEngine": "quantum.engines.base",
    "Engine": "quantum.engines.base",
    "FREE": "quantum.meter",
    "Host": "quantum.engines.base",
    "Prepared": "quantum.engines.base",
    "Spent": "quantum.meter",
    "TrainResult": "quantum.training.local",
    "TrainingData": "quantum.training.problem",
    "Usage": "quantum.engines.base",
    "build_classifier": "quantum.classifier",
    "build_engine": "quantum.engines.factory",
    "check_backend": "quantum.engines.factory",
    "cross_entropy": "quantum.losses",
    "distillation": "quantum.losses",
    "distilled_loss": "quantum.losses",
    "evaluate": "quantum.training.local",
    "metered": "quantum.meter",
    "proximal_term": "quantum.losses",
    "train_local": "quantum.training.local",
}

__all__ = [
    "FREE",
    "QCNN",
    "VQC",
    "Classifier",
    "DeviceEngine",
    "Engine",
    "Host",
    "Prepared",
    "Spent",
    "TrainResult",
    "TrainingData",
    "Usage",
    "build_ansatz",
    "build_classifier",
    "build_engine",
    "check_backend",
    "circuits_before_steps",
    "circuits_per_step",
    "cross_entropy",
    "distillation",
    "distilled_loss",
    "evaluate",
    "metered",
    "proximal_term",
    "train_local",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
