"""The engine of small circuits: an observable's Pauli coefficients, rotated by compiled loops.

All numbers are float64: single precision would save nothing here. `docs/engine.md` explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum.circuit.circuit import Circuit
from quantum.engines.base import EncodedRows
from quantum.engines.pauli.compiled import kernels
from quantum.engines.pauli.rotation_plan import plan_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROWS = 8
"""Rows of a block, as in the compiled functions."""

CHUNK = 2048
"""Rows that are encoded at once."""

MOST_LANES = 128
"""Lanes that are rotated side by side: more would leave the processor's cache."""


@dataclass(frozen=True)
class EncodedWords:
    """Rows as expectations of Pauli words.

    Attributes
    ----------
    blocks : numpy.ndarray, float64, shape (B, M, 8)
        M words' expectations, eight rows a block, zeros behind the last.
    rows : int
        Number of rows.
    """

    blocks: np.ndarray
    rows: int

    def take(self, indices: Tensor) -> EncodedWords:
        """Return the rows at ``indices``."""
        blocks, words, size = self.blocks.shape
        flat = self.blocks.transpose(0, 2, 1).reshape(blocks * size, words)
        return EncodedWords(in_blocks(flat[np.asarray(indices)]), len(indices))


def in_blocks(values: np.ndarray) -> np.ndarray:
    """Arrange rows (rows, M) in blocks (B, M, 8)."""
    rows, words = values.shape
    blocks = -(-rows // ROWS)
    padded = np.zeros((blocks * ROWS, words))
    padded[:rows] = values
    return np.ascontiguousarray(padded.reshape(blocks, ROWS, words).transpose(0, 2, 1))


class PauliEngine:
    """Exact simulation of a small circuit, see `quantum.engines.pauli.rotation_plan`.

    Parameters
    ----------
    ansatz : Circuit
        A circuit that `can_run`.
    """

    name = "exact"

    def __init__(self, ansatz: Circuit) -> None:
        self.ansatz = ansatz
        self.plan = plan_of(ansatz)

    @property
    def dtype(self) -> torch.dtype:
        """Type of slots and expectations, float64."""
        import torch

        return torch.float64

    @property
    def device(self) -> torch.device:
        """Where slots and expectations are: the CPU."""
        import torch

        return torch.device("cpu")

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> EncodedWords:
        """Encode features of shape (rows, n); how many are used at a time changes nothing."""
        return self.prepare_all([features])[0]

    def prepare_all(self, features: Sequence[np.ndarray]) -> list[EncodedWords]:
        """Encode several data sets, each of shape (rows, n), in one go."""
        x = np.concatenate([np.asarray(one, dtype=np.float64) for one in features])
        encode = self.plan.encoder.encode
        parts = [encode(x[k : k + CHUNK]).T for k in range(0, len(x), CHUNK)]
        ends = np.cumsum([len(one) for one in features])
        own = np.split(np.concatenate(parts), ends[:-1])
        return [EncodedWords(in_blocks(values), len(values)) for values in own]

    def evaluate(self, points: np.ndarray, encoded: EncodedRows) -> np.ndarray:
        """Compute the expectations at each of K points (K, S), shape (K, rows, R)."""
        rows, plan = cast(EncodedWords, encoded), self.plan
        slots = np.ascontiguousarray(points, dtype=np.float64)
        found = np.empty((len(slots), plan.readouts, len(rows.blocks) * ROWS))
        size = max(1, MOST_LANES // plan.readouts)
        for k in range(0, len(slots), size):
            part = slice(k, k + size)
            kernels().evaluate_lanes(plan.arrays, slots[part], rows.blocks, found[part])
        return np.ascontiguousarray(found[:, :, : rows.rows].transpose(0, 2, 1))

    def pull_back(self, slots: np.ndarray, encoded: EncodedRows, slopes: np.ndarray) -> np.ndarray:
        """Gradient (S,) to slots (S,) from that to the expectations, (rows, R)."""
        rows, plan = cast(EncodedWords, encoded), self.plan
        padded = np.zeros((plan.readouts, len(rows.blocks) * ROWS))
        padded[:, : rows.rows] = slopes.T
        point = np.ascontiguousarray(slots, dtype=np.float64)[None]
        gradient = np.empty(point.shape[1])
        kernels().pull_back(plan.arrays, point, rows.blocks, padded, gradient)
        return gradient

    def expectations(self, slots: Tensor, encoded: EncodedRows) -> Tensor:
        """Return the read-outs' expectations, shape (rows, R), differentiable (once) in slots."""
        from quantum.engines.pauli.autograd import Expectations

        return cast("Tensor", cast(Any, Expectations).apply(slots, self, encoded))
