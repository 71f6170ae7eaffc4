"""The language models: each site's local one, and (`strategies.agents`) the agent of the server.

This door is light: torch, transformers and peft are imported when a name that needs them is
first asked for (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

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

__getattr__ = lazy_door(
    __name__,
    {
        "llm.calibration": "fit_temperature softmax",
        "llm.cross_fitting": "cross_fit",
        "llm.embedding": "embed",
        "llm.feature_store": "stored_embedding",
        "llm.federated": "LocalRound local_round",
        "llm.fine_tuning": "fine_tune load_fine_tuned",
        "llm.frozen_adapter": "Adopted adopt keep_adopted kept_adopted",
        "llm.models": "Model load_base",
        "llm.shared": "shared_bytes",
        "llm.sources": "Source local_model resolve",
        "llm.store": "FILE_MODE content_key",
        "llm.teacher": "Teacher no_teacher",
    },
)
