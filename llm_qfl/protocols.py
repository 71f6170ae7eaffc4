"""What extensions look like; a class need not name its protocol, only have its methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from data import Dataset


class Ansatz(Protocol):
    """A circuit family, written in PennyLane (docs/backends.md)."""

    def circuit(self, features: Any, weights: Any, wires: Sequence[int]) -> None:
        """Apply the gates: features (qubits,), weights of `shape`, on the wires."""

    def shape(self, qubits: int, classes: int) -> tuple[int, ...]:
        """Return the shape of the weights."""


class DatasetFunction(Protocol):
    """Returns a data set: rows, labels and splits (docs/extending/dataset.md)."""

    def __call__(self, **options: Any) -> Dataset:
        """Return the rows; ``settings`` and ``seed`` are given where it has such parameters."""


class Aggregation(Protocol):
    """Makes one model of the sites' updates (docs/extending/aggregation.md)."""

    def __call__(
        self, updates: Sequence[dict[str, Any]], weights: Any, reference: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the next global arrays by name, of the sites', their rows and the global ones."""
