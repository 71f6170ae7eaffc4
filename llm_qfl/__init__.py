"""What a user imports and calls: runs, studies, results, models and extension points.

Everything is imported on its first use: ``import llm_qfl`` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core import (
        BackendError,
        BudgetError,
        DataError,
        ModelError,
        Settings,
        SettingsError,
        UserError,
    )
    from core.registry import register
    from data import Dataset
    from llm.protocol import LocalModel, ModelContext
    from llm_qfl.callbacks import Callback
    from llm_qfl.estimator import LlmQflClassifier
    from llm_qfl.model import Model, load
    from llm_qfl.protocols import Aggregation, DatasetFunction
    from llm_qfl.result import Report, Result, read
    from llm_qfl.runs import run
    from llm_qfl.studies import Study, read_study, study
    from quantum.circuit import Ansatz
    from strategies.decisions import Agent, ClientView, Decision, Observation

_HOMES = {
    "core": "Settings SettingsError UserError DataError ModelError BackendError BudgetError",
    "core.registry": "register",
    "data": "Dataset",
    "llm_qfl.callbacks": "Callback",
    "llm_qfl.estimator": "LlmQflClassifier",
    "llm_qfl.model": "Model load",
    "llm.protocol": "LocalModel ModelContext",
    "llm_qfl.protocols": "Aggregation DatasetFunction",
    "llm_qfl.result": "Report Result read",
    "llm_qfl.runs": "run",
    "llm_qfl.studies": "Study read_study study",
    "quantum.circuit": "Ansatz",
    "strategies.decisions": "Agent ClientView Decision Observation",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    # Not `core.doors.lazy_door`: `core` alone takes half a second.
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
