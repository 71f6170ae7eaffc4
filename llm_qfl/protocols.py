"""What extensions that are functions look like; they need not name their protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

    from data import Dataset


class DatasetFunction(Protocol):
    """A data set: a function that returns its rows (docs/extending/dataset.md).

    It may take ``settings`` (the ``data`` section), ``seed``, and options of its own by name.
    """

    def __call__(self, *given: Any, **options: Any) -> Dataset:
        """Return rows, labels and splits."""


class Aggregation(Protocol):
    """An aggregation: a function, or a strategy of Flower's (docs/extending/aggregation.md)."""

    def __call__(
        self,
        updates: Sequence[Mapping[str, npt.NDArray[Any]]],
        weights: npt.NDArray[Any],
        reference: Mapping[str, npt.NDArray[Any]],
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Return the next global arrays by name.

        Parameters
        ----------
        updates : sequence of mapping
            Each client's trained arrays by name, of the shapes of `reference`.
        weights : array, (updates,)
            Rows that each client weighs.
        reference : mapping
            The round's global arrays.
        """
