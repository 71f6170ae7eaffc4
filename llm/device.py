"""Where a language model computes, in which precision, and its generators of random numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch

from core import ModelError

CPU = torch.device("cpu")


def choose_device(
    device: Literal["auto", "cpu", "cuda"], setting: str = "llm.device"
) -> torch.device:
    """Turn a setting into a torch device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        ``auto`` is CUDA where torch has it.
    setting : str
        The setting, for messages.

    Returns
    -------
    torch.device
        The CPU, or the current CUDA device.

    Raises
    ------
    core.ModelError
        If CUDA is required and not there.
    """
    if device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if device == "cuda":
        raise ModelError(
            f"{setting} = 'cuda', but torch finds no CUDA device",
            "'cpu', 'auto', or 'cuda' with a CUDA build of torch and a GPU",
            f"set {setting}=cpu",
        )
    return CPU


def device_of(module: torch.nn.Module) -> torch.device:
    """Return the device of a module's first parameter; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), CPU)


def moved(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch with its tensors on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def has_bfloat16(device: torch.device = CPU) -> bool:
    """Return whether a device multiplies bfloat16 numbers itself (a CPU: 1.5 times faster here)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def mixed_precision(device: torch.device, bfloat16: bool = True) -> AbstractContextManager[Any]:
    """Return the context of bfloat16 matrix products, without effect where they do not pay."""
    enabled = bfloat16 and has_bfloat16(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def enough_memory(name: str) -> Iterator[None]:
    """Turn an exhausted GPU memory into an error of one line.

    Parameters
    ----------
    name : str
        What the user calls the model.

    Raises
    ------
    core.ModelError
        Instead of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the GPU's memory does not hold llm.model {name} and its batches",
            "a smaller llm.batch_size, llm.max_tokens or model, llm.peft=qlora to fine-tune, "
            "or llm.device=cpu",
            "change one of them; several clients may share this GPU",
        ) from error


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed within the context; the generators outside of it stay as they were.

    Parameters
    ----------
    seed : int
        For torch's generator of the CPU and, if that is the device, of CUDA.
    device : torch.device
        Where weights are made and dropout draws.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


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
