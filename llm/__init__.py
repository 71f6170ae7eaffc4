"""The language models: each site's local one, and (`llm.agent`) the agent of the server.

This door is light: torch, transformers and peft are imported when a name that needs them is
first asked for (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm.calibration import fit_temperature, softmax
    from llm.cross_fitting import cross_fit
    from llm.embedding import embed
    from llm.feature_store import stored_embedding
    from llm.fine_tuning import Teacher, fine_tune, load_fine_tuned
    from llm.models import Model, load_base
    from llm.sources import Source, resolve

_HOMES = {
    "Model": "llm.models",
    "Source": "llm.sources",
    "Teacher": "llm.fine_tuning",
    "cross_fit": "llm.cross_fitting",
    "embed": "llm.embedding",
    "fine_tune": "llm.fine_tuning",
    "fit_temperature": "llm.calibration",
    "load_base": "llm.models",
    "load_fine_tuned": "llm.fine_tuning",
    "resolve": "llm.sources",
    "softmax": "llm.calibration",
    "stored_embedding": "llm.feature_store",
}

__all__ = [
    "Model",
    "Source",
    "Teacher",
    "cross_fit",
    "embed",
    "fine_tune",
    "fit_temperature",
    "load_base",
    "load_fine_tuned",
    "resolve",
    "softmax",
    "stored_embedding",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
