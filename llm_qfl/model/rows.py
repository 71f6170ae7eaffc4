"""What a model takes: rows of text or DNA, or features; checked as the run's readers check rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core import DataError

Rows = Sequence[str] | npt.NDArray[Any]
"""Texts or sequences, one a row; a pandas Series of them too."""


def checked_rows(rows: Rows, kind: Literal["text", "dna"]) -> tuple[str, ...]:
    """Return rows as the run's readers would: DNA in upper case, texts cleaned.

    Raises
    ------
    DataError
        At the first row that is no text, or no DNA where that is what the model reads.
    """
    from data import checked_dna, clean_texts

    if isinstance(rows, str | bytes) or np.ndim(rows) != 1:
        given = "one text" if isinstance(rows, str | bytes) else "rows of several columns"
        raise DataError(given, "a sequence of texts, one a row", "put it into a list")
    texts = tuple(rows)
    wrong = next((k for k, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        given = f"row {wrong + 1} is of type {type(texts[wrong]).__name__}"
        raise DataError(given, "a text in every row", "remove the row, or turn it into text")
    check = checked_dna if kind == "dna" else clean_texts
    return check(tuple(str(text) for text in texts), lambda row: f"row {row + 1}")[0]


def finite(features: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return features as an array of finite numbers."""
    try:
        given = np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("features that are no numbers", "(rows, d)", "use predict") from None
    if not np.isfinite(given).all():
        raise DataError("features that are not finite", "finite numbers", "remove these rows")
    return given


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on so many torch threads: on small circuits more are slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
