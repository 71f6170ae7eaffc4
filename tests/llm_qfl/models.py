"""A model small enough to check by hand, written as a run writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.model_file import write_model_file

SCALE, BIAS = 3.0, 0.25


def write_tiny(folder: Path, **facts: Any) -> Path:
    """Write a model of two qubits whose circuit leaves <Z> = cos(x_0).

    With all angles 0 the SU(4) block is the identity, and pooling turns Z of the qubit that is
    read out into Z of the other one, whose state RY(x_0) has made. The features are the shares of
    A or T and of C or G, moved by their mean 1/2 and scaled to x = pi/2 (share - 1/2).
    """
    from strategies.journal import save_arrays

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "angles": np.zeros(18, dtype=np.float32),
        "scale": np.array([SCALE], dtype=np.float32),
        "bias": np.array([BIAS], dtype=np.float32),
        "projection.mean": np.array([0.5, 0.5]),
        "projection.matrix": np.eye(2),
        "projection.scale": np.ones(2),
        "projection.clip": np.ones(1),
    }
    save_arrays(folder / "model.safetensors", arrays)
    settings = {"features": {"kind": "kmer", "k": 1}, "quantum": {"qubits": 2}}
    known = {"classes": ["rich", "poor"], "kind": "dna", "settings": settings}
    write_model_file(folder, {**known, **facts}, ("model.safetensors",))
    return folder


def tiny_probabilities(rows: list[str]) -> np.ndarray:
    """Return what that model predicts, from its formula."""
    share = np.array([sum(letter in "ATat" for letter in row) / len(row) for row in rows])
    logit = SCALE * np.cos(np.pi / 2 * (share - 0.5)) + BIAS
    second = 1 / (1 + np.exp(-logit))
    return np.stack([1 - second, second], axis=1)
