"""Low-rank adapters: which layers get one, and the files that hold them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from core import LlmSettings, ModelError
from llm.device import choose_device
from llm.models import Model, build_classifier, count_parameters
from llm.quantised import check_gradients, size_of
from llm.sources import Source
from llm.training import RECIPE

ADAPTER, WHOLE = "adapter_model.safetensors", "model.safetensors"

LARGE = 1_000_000_000
"""Parameters from which 4 bits are worth their slower steps: 4 GB of float32 weights."""


def choose_peft(
    peft: Literal["auto", "lora", "qlora", "none"], source: Source, device: torch.device
) -> Literal["lora", "qlora", "none"]:
    """Turn `llm.peft` into what a node does.

    Parameters
    ----------
    peft : {"auto", "lora", "qlora", "none"}
        ``auto`` is ``qlora`` on CUDA for a model of at least `LARGE` parameters, counted from
        its config without reading a weight, and ``lora`` otherwise. On the CPU, 4 bits save
        no memory while training and cost time.
    source : Source
        The model.
    device : torch.device
        Where it will be trained.

    Raises
    ------
    core.ModelError
        If the model's config cannot be read.
    """
    if peft != "auto":
        return peft
    large = device.type == "cuda" and count_parameters(source) >= LARGE
    return "qlora" if large else "lora"


def chosen(settings: LlmSettings, source: Source) -> LlmSettings:
    """Return the settings with what ``auto`` means here; it is part of the store's key."""
    kind = choose_peft(settings.peft, source, choose_device(settings.device))
    return settings.model_copy(update={"peft": kind})


def facts(settings: LlmSettings, source: Source) -> dict[str, Any]:
    """Return what a fine-tuning depends on besides rows and seed, of `chosen` settings."""
    # On which device it was trained makes no other teacher of it.
    skipped = {"model", "options", "encoder", "reuse", "store", "device"}
    return {
        "recipe": RECIPE,
        "model": source.name,
        "identity": source.identity,
        "settings": settings.model_dump(exclude=skipped),
    }


def linear_layers(model: Model) -> list[str]:
    """Return the names of the encoder's linear layers, without heads and pooler.

    Parameters
    ----------
    model : Model
        A classifier of `llm.models.build_classifier`.

    Returns
    -------
    list of str
        Full names, in the model's order; GPT-2's ``Conv1D`` layers count as linear.
    """
    from transformers.pytorch_utils import Conv1D

    skipped = {*model.heads, "pooler"}
    return [
        name
        for name, module in model.module.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and not skipped & set(name.split("."))
    ]


def choose_layers(model: Model, targets: str) -> list[str]:
    """Return the layers that `llm.targets` names.

    Parameters
    ----------
    model : Model
        A classifier.
    targets : str
        ``auto`` or last parts of names, comma-separated.

    Returns
    -------
    list of str
        Full names.

    Raises
    ------
    core.ModelError
        If a name fits no layer.
    """
    layers = linear_layers(model)
    if targets == "auto":
        return layers
    names = [name.strip() for name in targets.split(",") if name.strip()]
    chosen = [layer for layer in layers if any(_fits(layer, name) for name in names)]
    lost = [name for name in names if not any(_fits(layer, name) for layer in layers)]
    if lost or not chosen:
        endings = sorted({layer.rpartition(".")[2] for layer in layers})
        raise ModelError(
            f"llm.targets {', '.join(lost) or repr(targets)}: {model.source.name} has no such "
            "linear layer",
            "auto, or names among " + ", ".join(endings),
            "correct llm.targets",
        )
    return chosen


def _fits(layer: str, name: str) -> bool:
    return layer == name or layer.endswith("." + name)


def adapt(model: Model, settings: LlmSettings) -> torch.nn.Module:
    """Make a classifier ready for fine-tuning as `llm.peft` says.

    Parameters
    ----------
    model : Model
        A classifier; with LoRA and QLoRA its encoder is frozen.
    settings : LlmSettings
        `peft` (resolved by `choose_peft`), `rank`, `alpha`, `dropout` and `targets`.

    Returns
    -------
    torch.nn.Module
        peft's model, or the module itself for ``peft = none``.
    """
    if settings.peft == "none":
        return model.module
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers.pytorch_utils import Conv1D

    layers = choose_layers(model, settings.targets)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=layers,
        modules_to_save=list(model.heads),
        fan_in_fan_out=isinstance(model.module.get_submodule(layers[0]), Conv1D),
    )
    with warnings.catch_warnings(), _layers_as_named():
        # peft reads a property by its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        adapted: torch.nn.Module = get_peft_model(model.module, config)
    return adapted


@contextmanager
def _layers_as_named() -> Iterator[None]:
    """Keep peft from renaming layers of a mixture of experts to what older versions called them.

    It takes every ``gate_proj`` for an expert's and drops those of dense and shared layers.
    """
    from peft.utils import transformers_weight_conversion as conversion

    renames = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = lambda *_, **__: None
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = renames


def build(
    source: Source, classes: int, settings: LlmSettings, device: torch.device
) -> tuple[Model, torch.nn.Module]:
    """Load a classifier, adapt it, and bring it to its device.

    Parameters
    ----------
    source : Source
        Which model.
    classes : int
        Outputs of the head.
    settings : LlmSettings
        As for `adapt`; with ``qlora`` the base is loaded in 4 bits.
    device : torch.device
        Where it will compute.

    Returns
    -------
    tuple
        The classifier, and what `adapt` makes of it, in eval mode; fresh weights come from
        torch's current generators.

    Raises
    ------
    core.ModelError
        As `llm.models.build_classifier` and `choose_layers`, and if a quantised model's
        adapters would not learn here.
    """
    quantised = settings.peft == "qlora"
    model = build_classifier(source, classes, device if quantised else None)
    module = adapt(model, settings).to(device).eval()
    if quantised:
        check_gradients(module, source.name)
    return model, module


def count(module: torch.nn.Module) -> tuple[int, int]:
    """Return the numbers of trainable parameters and of all, those in 4 bits counted in full."""
    sizes = [(size_of(p), p.requires_grad) for p in module.parameters()]
    return sum(size for size, on in sizes if on), sum(size for size, _ in sizes)


def save(module: torch.nn.Module, folder: Path) -> None:
    """Write what fine-tuning made: peft's adapter with the head, or all weights.

    Parameters
    ----------
    module : torch.nn.Module
        From `adapt`.
    folder : Path
        Existing folder; gets ``adapter_model.safetensors`` and ``adapter_config.json``, or
        ``model.safetensors``.
    """
    from safetensors.torch import save_file, save_model

    config: Any = getattr(module, "peft_config", None)
    if config is None:
        save_model(module, str(folder / WHOLE))
        return
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(module, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / ADAPTER)
    config["default"].save_pretrained(folder)


def restore(module: torch.nn.Module, folder: Path) -> None:
    """Load what `save` wrote into a module of the same making."""
    from safetensors.torch import load_file, load_model

    if not hasattr(module, "peft_config"):
        load_model(module, str(folder / WHOLE))
        return
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(module, load_file(folder / ADAPTER))
