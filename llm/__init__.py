"""The language models: each site's local one, and (`strategies.agents`) the agent of the server.

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
    from llm.federated import LocalRound, local_round
    from llm.fine_tuning import fine_tune, load_fine_tuned
    from llm.frozen_adapter import Adopted, adopt, keep_adopted, kept_adopted
    from llm.models import Model, load_base
    from llm.shared import shared_bytes
    from llm.sources import Source, local_model, resolve
    from llm.store import FILE_MODE, content_key
    from llm.teacher import Teacher, no_teacher

_HOMES = {
    "Adopted": "llm.frozen_adapter",
    "FILE_MODE": "llm.store",
    "LocalRound": "llm.federated",
    "Model": "llm.models",
    "Source": "llm.sources",
    "Teacher": "llm.teacher",
    "adopt": "llm.frozen_adapter",
    "content_key": "llm.store",
    "cross_fit": "llm.cross_fitting",
    "embed": "llm.embedding",
    "fine_tune": "llm.fine_tuning",
    "fit_temperature": "llm.calibration",
    "keep_adopted": "llm.frozen_adapter",
    "kept_adopted": "llm.frozen_adapter",
    "load_base": "llm.models",
    "load_fine_tuned": "llm.fine_tuning",
    "local_model": "llm.sources",
    "local_round": "llm.federated",
    "no_teacher": "llm.teacher",
    "resolve": "llm.sources",
    "shared_bytes": "llm.shared",
    "softmax": "llm.calibration",
    "stored_embedding": "llm.feature_store",
}

__all__ = [
    "FILE_MODE",
    "Adopted",
    "LocalRound",
    "Model",
    "Source",
    "Teacher",
    "adopt",
    "content_key",
    "cross_fit",
    "embed",
    "fine_tune",
    "fit_temperature",
    "keep_adopted",
    "kept_adopted",
    "load_base",
    "load_fine_tuned",
    "local_model",
    "local_round",
    "no_teacher",
    "resolve",
    "shared_bytes",
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
