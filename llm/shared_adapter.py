"""The adapter that all sites train together: its start, its model, and the frozen end result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core import LlmSettings, ModelError, derive_seed
from llm import adapters
from llm.adapters import ADAPTER
from llm.device import choose_device, quiet, seeded
from llm.models import Model, empty_classifier
from llm.protocol import Kind
from llm.sources import resolve
from llm.teacher import teacher_store

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class FrozenAdapter:
    """An adapter after the last round of averaging.

    Attributes
    ----------
    arrays : mapping
        The averaged parameters, float32, by name.
    digest : str
        Their `digest`.
    classes : int
        Outputs of its head.
    seed : int
        The run's seed, from which everything that was not sent is drawn.
    """

    arrays: Arrays
    digest: str
    classes: int
    seed: int

    def facts(self) -> dict[str, Any]:
        """Return what a content key must hold of it; JSON values."""
        return {"adapter": self.digest, "shared seed": self.seed}


def digest(arrays: Arrays) -> str:
    """Return the sha256 of named arrays, in hexadecimal."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        found.update(f"{name}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def freeze_adapter(arrays: Arrays, classes: int, seed: int) -> FrozenAdapter:
    """Return averaged parameters as a frozen adapter."""
    return FrozenAdapter(arrays, digest(arrays), classes, seed)


def write_arrays(arrays: Arrays, folder: Path) -> None:
    """Write a shared adapter's averaged arrays to ``adapter_model.safetensors``."""
    from safetensors.numpy import save_file

    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ADAPTER
    )


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    from safetensors.numpy import load_file

    return dict(load_file(folder / ADAPTER))


def save_adapter(adapter: FrozenAdapter, store: Path) -> None:
    """Write an adapter to a site's store, whole or not at all.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    teacher_store(store).write(
        _key(adapter.digest), lambda folder: write_arrays(adapter.arrays, folder)
    )


def load_adapter(store: Path, wanted: str, classes: int, seed: int) -> FrozenAdapter:
    """Read an adapter from a site's store.

    Raises
    ------
    core.ModelError
        If it is not there, or is not what was written.
    """
    arrays = teacher_store(store).read(_key(wanted), read_arrays)
    if arrays is None or digest(arrays) != wanted:
        raise ModelError(
            "the shared adapter of this run cannot be read from "
            f"{store / 'teachers' / _key(wanted)} (it is missing or damaged)",
            "the folder that was written when the federation agreed on it",
            "start the run again, and leave the site's store alone while it lasts",
        )
    return FrozenAdapter(arrays, wanted, classes, seed)


def _key(wanted: str) -> str:
    return f"adapter-{wanted}"


_DIGEST_BITS = 48


@dataclass(frozen=True)
class Shared:
    """The shared model in this process.

    Attributes
    ----------
    model : Model
        The classifier; its `module` is the bare one.
    module : torch.nn.Module
        The same with adapters.
    names : tuple of str
        Parameters that are trained, sent and averaged.
    start : int
        First 48 bits of a hash of everything the sites must have alike: the adapters and head as
        drawn, frozen A included.
    """

    model: Model
    module: torch.nn.Module
    names: tuple[str, ...]
    start: int

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Copy the averaged parameters out, float32."""
        held = dict(self.module.named_parameters())
        return {name: held[name].detach().float().cpu().numpy().copy() for name in self.names}

    def load(self, arrays: Arrays) -> None:
        """Copy averaged parameters in.

        Raises
        ------
        core.ModelError
            If names or shapes are those of another model or of other settings.
        """
        held = dict(self.module.named_parameters())
        wanted = {name: tuple(held[name].shape) for name in self.names}
        given = {name: tuple(np.shape(array)) for name, array in arrays.items()}
        if given != wanted:
            raise ModelError(
                f"a shared adapter of {len(given)} arrays that does not fit "
                f"{self.model.source.name}",
                f"the {len(wanted)} arrays of its own adapters and head",
                "give all nodes the same llm settings and version of the app",
            )
        with torch.no_grad():
            for name, array in arrays.items():
                held[name].copy_(torch.from_numpy(np.array(array)))


def build_shared(settings: LlmSettings, kind: Kind, classes: int, seed: int) -> Shared:
    """Build the shared model at its start, the same at every site.

    Parameters
    ----------
    settings, kind : LlmSettings and {"text", "dna"}
        Model, adapters and ``federated``; what the rows are.
    classes : int
        Outputs of the head.
    seed : int
        The run's; adapters and head are drawn from a seed derived from it.

    Raises
    ------
    core.ModelError
        If the model is missing, corrupt or unsuitable.
    """
    quiet()
    source = resolve(settings.model, kind, layers=settings.layers)
    device = choose_device(settings.device)
    # What is drawn while the model is built does not count: it depends on device and precision.
    with seeded(0, device):
        model, module = adapters.build(source, classes, adapters.chosen(settings, source), device)
    _draw(module, seed)
    return Shared(model, module, _averaged(module, settings), _digest_of_start(module))


def _draw(module: torch.nn.Module, seed: int) -> None:
    """Draw A and the head by name and shape only: uniform in ±1 / sqrt(fan-in), no bias."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_B." in name or not parameter.requires_grad:
                continue
            bound = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.0
            rng = np.random.default_rng(derive_seed(seed, "shared adapter", name))
            drawn = rng.uniform(-bound, bound, size=tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))


def _averaged(module: torch.nn.Module, settings: LlmSettings) -> tuple[str, ...]:
    """Freeze A for FFA-LoRA and return what is trained."""
    if settings.federated == "ffa":
        for name, parameter in module.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
    return tuple(sorted(name for name, p in module.named_parameters() if p.requires_grad))


def _digest_of_start(module: torch.nn.Module) -> int:
    drawn = {
        name: parameter.detach().float().cpu().numpy()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad or ".lora_A." in name
    }
    return int(digest(drawn), 16) >> (256 - _DIGEST_BITS)


def shared_bytes(settings: LlmSettings, kind: Kind, classes: int) -> int:
    """Return the bytes of what a site sends in an averaging round, float32; reads no weight."""
    quiet()
    source = resolve(settings.model, kind, layers=settings.layers)
    module, heads = empty_classifier(source, classes)
    model = Model(source, module, None, 0, 0, heads)
    adapted = adapters.adapt(model, settings.model_copy(update={"peft": "lora"}))
    held = dict(adapted.named_parameters())
    return 4 * sum(held[name].numel() for name in _averaged(adapted, settings))


def build_frozen(settings: LlmSettings, kind: Kind, adapter: FrozenAdapter) -> Shared:
    """Build the shared model with a frozen adapter in it, in eval mode.

    Raises
    ------
    core.ModelError
        If the model is unsuitable, or the adapter is not of it.
    """
    shared = build_shared(settings, kind, adapter.classes, adapter.seed)
    shared.load(adapter.arrays)
    shared.module.eval()
    return shared
