"""A trained model to take home: load it, predict, save it, hand it on.

This door is light: torch and PennyLane are imported when a model first predicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

if TYPE_CHECKING:
    from llm_qfl.model.loading import load
    from llm_qfl.model.model import Model

__getattr__ = lazy_door(
    __name__,
    {
        "llm_qfl.model.loading": "load",
        "llm_qfl.model.model": "Model",
    },
)
