"""The language models: each site's local one, and (`strategies.agents`) the agent of the server.

This door is light: torch, transformers and peft are imported when a name that needs them is
first used (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

if TYPE_CHECKING:
    from llm.calibration import fit_temperature, softmax
    from llm.checked import build_encoder, common_identity, encoder_choice, local_model
    from llm.cross_fitting import cross_fit
    from llm.embedding import embed, stored_embedding
    from llm.federated import LocalRound, local_round
    from llm.fine_tuning import Task, fine_tune
    from llm.fitted import load_fine_tuned
    from llm.models import Model, load_base
    from llm.protocol import LocalModel, ModelContext
    from llm.shared_adapter import (
        FrozenAdapter,
        freeze_adapter,
        load_adapter,
        save_adapter,
        shared_bytes,
    )
    from llm.sources import Source, resolve
    from llm.teacher import Teacher, content_key, no_teacher

__getattr__ = lazy_door(
    __name__,
    {
        "llm.calibration": "fit_temperature softmax",
        "llm.checked": "build_encoder common_identity encoder_choice local_model",
        "llm.cross_fitting": "cross_fit",
        "llm.embedding": "embed stored_embedding",
        "llm.federated": "LocalRound local_round",
        "llm.fine_tuning": "Task fine_tune",
        "llm.fitted": "load_fine_tuned",
        "llm.models": "Model load_base",
        "llm.shared_adapter": "FrozenAdapter freeze_adapter load_adapter save_adapter shared_bytes",
        "llm.protocol": "LocalModel ModelContext",
        "llm.sources": "Source resolve",
        "llm.teacher": "Teacher content_key no_teacher",
    },
)
