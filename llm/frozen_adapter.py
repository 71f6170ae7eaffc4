"""A shared adapter that the federation has agreed on, and its place in a site's store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import ModelError, atomic_write, explain, private_folder
from llm.store import FILE_MODE

Arrays = Mapping[str, npt.NDArray[Any]]

_FOLDER = "adapters"


@dataclass(frozen=True)
class Adopted:
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


def adopt(arrays: Arrays, classes: int, seed: int) -> Adopted:
    """Return averaged parameters as an adopted adapter."""
    return Adopted(arrays, digest(arrays), classes, seed)


def keep_adopted(adopted: Adopted, store: Path) -> None:
    """Write an adapter to a site's store, whole or not at all.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    from safetensors.numpy import save_file

    path = _path(store, adopted.digest)
    arrays = {name: np.ascontiguousarray(array) for name, array in adopted.arrays.items()}
    private_folder(path.parent)
    atomic_write(path, lambda file: save_file(arrays, str(file)), mode=FILE_MODE)


def kept_adopted(store: Path, wanted: str, classes: int, seed: int) -> Adopted:
    """Read an adapter from a site's store.

    Raises
    ------
    core.ModelError
        If it is not there, or is not what was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = _path(store, wanted)
    try:
        found = adopt(load_file(path), classes, seed)
    except (OSError, SafetensorError) as error:
        raise ModelError(_lost(path, str(error))) from error
    if found.digest != wanted:
        raise ModelError(_lost(path, "it is damaged"))
    return found


def _lost(path: Path, why: str) -> str:
    return explain(
        f"the shared adapter of this run cannot be read from {path} ({why})",
        "the file that was written when the federation agreed on it",
        "start the run again, and leave the site's store alone while it lasts",
    )


def _path(store: Path, name: str) -> Path:
    return store / _FOLDER / f"{name}.safetensors"
