"""Keep the libraries under us quiet: one run's own lines are the only progress it prints."""

from __future__ import annotations

import logging
import os

_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_LOGGERS = ("transformers", "huggingface_hub", "bitsandbytes.backends.cpu.ops", "peft")


def quiet() -> None:
    """Silence progress bars, advice and telemetry of transformers, peft and the hub client.

    Called by the functions that load a model, never at import. What the user has set in the
    environment stays as it is.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
