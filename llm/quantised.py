"""QLoRA: the frozen base in 4 bits, adapters and head in float32 (Dettmers et al. 2023).

nf4 with double quantisation by bitsandbytes, on CUDA and on the CPU. The fresh head is put on
afterwards, and so not quantised with the rest. On the CPU two things go wrong by default, and are
corrected here: an evaluation forward before training repacks the weights, on CPUs with AVX512-BF16,
for a kernel without autograd; and some architectures then train on without a word.
`check_gradients` is what would notice.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from core import ModelError, explain
from llm.device import CPU, device_of, has_bfloat16, mixed_precision
from llm.sources import first_line

_CHECK_ROWS, _CHECK_TOKENS = 2, 8


def loading_arguments(device: torch.device) -> dict[str, Any]:
    """Return what `from_pretrained` needs to quantise a base model while it loads.

    Raises
    ------
    core.ModelError
        If bitsandbytes does not work here.
    """
    from transformers import BitsAndBytesConfig

    try:
        importlib.import_module("bitsandbytes.nn")
    # A library for another CUDA or operating system fails in ways of its own.
    except Exception as error:
        raise ModelError(
            f"llm.peft qlora needs bitsandbytes, which does not work here ({error})",
            "lora, none, or qlora with bitsandbytes installed",
            "set llm.peft=lora, or run pip install bitsandbytes",
        ) from error
    # On the CPU float32: products are in bfloat16 all the same within autocast, and a layer that
    # computes in bfloat16 would round its bias for good. CUDA has kernels for bfloat16.
    fast = device.type == "cuda" and has_bfloat16(device)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if fast else torch.float32,
        llm_int8_skip_modules=[],
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def keep_autograd(module: torch.nn.Module) -> int:
    """Prevent 4-bit layers from using the CPU kernel that has no gradient.

    To be called before the first forward in eval mode, which would repack the weights for it.

    Returns
    -------
    int
        4-bit layers found.
    """
    import bitsandbytes

    layers = [m for m in module.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def size_of(parameter: torch.nn.Parameter) -> int:
    """Return how many weights a parameter holds; a 4-bit one packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def check_gradients(module: torch.nn.Module, name: str) -> None:
    """Refuse a quantised model whose adapters would not learn.

    An evaluation forward, then one backward pass of random tokens, with every B zero: then the
    gradient of a B comes through the 4-bit layers alone, not through other adapters, and shows
    whether the A before it will learn, whose own gradient is still zero.
    Weights, gradients and torch's generators are left as they were, the model in eval mode.

    Parameters
    ----------
    module : torch.nn.Module
        peft's model.
    name : str
        What the user calls the model.

    Raises
    ------
    core.ModelError
        If an adapter's weight has no gradient, or a B only zeros.
    """
    adapters = {key: p for key, p in module.named_parameters() if "lora_" in key}
    device = device_of(module)
    with _fresh(adapters):
        try:
            _one_pass(module, device)
            dead = [key for key, p in adapters.items() if not _learns(key, p)]
        except (RuntimeError, AssertionError) as error:  # kernels refuse shapes by either
            raise ModelError(_refusal(name, device, first_line(error))) from error
        finally:
            module.zero_grad(set_to_none=True)
            module.eval()
    if dead or not adapters:
        why = f"no gradient reaches {len(dead)} of {len(adapters)} adapter weights"
        raise ModelError(_refusal(name, device, why))


def _learns(name: str, parameter: torch.nn.Parameter) -> bool:
    grad = parameter.grad
    return grad is not None and ("lora_A" in name or bool(grad.any()))


def _refusal(name: str, device: torch.device, why: str) -> str:
    return explain(
        f"llm.peft qlora does not train {name} on this {device.type} ({why})",
        "lora or none",
        "set llm.peft=lora",
    )


def _one_pass(module: Any, device: torch.device) -> None:
    words = int(module.config.get_text_config().vocab_size)
    count = _CHECK_ROWS * _CHECK_TOKENS
    ids = torch.randint(words, (count,), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids.reshape(_CHECK_ROWS, -1).to(device)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    module.eval()
    with torch.no_grad():
        module(**batch)
    module.train()
    with mixed_precision(device):
        logits = module(**batch).logits
    torch.nn.functional.cross_entropy(
        logits.float(), torch.arange(_CHECK_ROWS, device=device) % logits.shape[1]
    ).backward()


@contextmanager
def _fresh(adapters: dict[str, torch.nn.Parameter]) -> Iterator[None]:
    """Set every B to zero as in a fresh LoRA; restore them, and torch's generators, afterwards."""
    before = {name: p.detach().clone() for name, p in adapters.items() if "lora_B" in name}
    cuda = sorted({p.device for p in adapters.values() if p.device != CPU}, key=str)
    try:
        with torch.no_grad():
            for name in before:
                adapters[name].zero_()
        with torch.random.fork_rng(devices=cuda):  # dropout draws
            yield
    finally:
        with torch.no_grad():
            for name, values in before.items():
                adapters[name].copy_(values)
