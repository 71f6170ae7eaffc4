"""The regulator's language: an observation as a text of binned numbers, a decision as its end.

A text is read from left to right: eight words on the run, then the model says ``go`` or ``stop``;
seven words on a client, then the model says ``skip`` or a multiple of the plain steps, and so on.
Clients come in the order of their merit so far, so that whoever is still to come is no better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

# Nats around zero, as fine as a decision needs: a plain round costs some 0.005.
_SIGNED_HALF = (0.0005, 0.002, 0.006, 0.015, 0.04, 0.1, 0.3)
_SIGNED = (*(-edge for edge in reversed(_SIGNED_HALF)), *_SIGNED_HALF)
_OCTAVES = (-2.5, -1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75, 2.5)
_COUNTS = (1.5, 2.5, 3.5, 5.5, 8.5, 12.5, 18.5, 26.5)
_PRICES = (0.0002, 0.0007, 0.0014, 0.0028, 0.0055, 0.011, 0.022)


@dataclass(frozen=True)
class Field:
    """One word's place in the text: its name, and the edges of its bins."""

    name: str
    edges: tuple[float, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """One word a bin, and a last one for what is not known."""
        return (*(f"{self.name}{i}" for i in range(len(self.edges) + 1)), f"{self.name}?")


RUN = (
    Field("round", _COUNTS),
    Field("left", _COUNTS),
    Field("loss", tuple(np.round(np.arange(0.1, 1.31, 0.06), 2))),
    Field("drop", _SIGNED),
    Field("drops", _SIGNED),
    Field("stale", (0.5, 1.5, 2.5, 4.5)),
    Field("price", _PRICES),
    Field("idle", _PRICES),
)
"""Words on the run: round, rounds left, loss over that of chance, its last drop and the mean of the
last three, rounds since the best, and the prices of circuits and of waiting."""

CLIENT = (
    Field("spend", _OCTAVES),
    Field("pace", _OCTAVES),
    Field("own", _SIGNED),
    Field("llm", _SIGNED),
    Field("credit", _SIGNED),
    Field("standing", (-2, -1, -0.6, -0.3, -0.1, 0.1, 0.3, 0.6, 1, 2)),
    Field("since", (0.5, 1.5, 2.5, 4.5)),
)
"""Words on a client: what a plain round of it costs and its seconds a step in octaves about the
clients' mean, its loss against the global one and its LLM's against their mean, credit of its last
round, mean standing, rounds since it trained."""

GO, STOP, SKIP = "go", "stop", "skip"
LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the plain steps that a participant may be given."""

VOCABULARY = (
    "pad",
    GO,
    STOP,
    SKIP,
    *(f"x{level:g}" for level in LEVELS),
    *(word for field in (*RUN, *CLIENT) for word in field.words),
)
GO_ID, STOP_ID, SKIP_ID = (VOCABULARY.index(word) for word in (GO, STOP, SKIP))
LEVEL_IDS = tuple(SKIP_ID + 1 + i for i in range(len(LEVELS)))


def binned(values: Floats, fields: tuple[Field, ...]) -> Ids:
    """Return the word of each number.

    Parameters
    ----------
    values : ndarray, shape (..., F)
        One number a field; NaN is not known.
    fields : tuple of Field
        F fields.

    Returns
    -------
    ndarray of int64, shape (..., F)
        Places in the vocabulary.
    """
    ids = np.empty(values.shape, dtype=np.int64)
    for place, field in enumerate(fields):
        column = values[..., place]
        bins = np.searchsorted(np.asarray(field.edges), column, side="right")
        bins = np.where(np.isnan(column), len(field.edges) + 1, bins)
        ids[..., place] = VOCABULARY.index(field.words[0]) + bins
    return ids


def text_ids(run: Floats, clients: Floats) -> Ids:
    """Return the ids of what is read, without what is said in between.

    Parameters
    ----------
    run : ndarray, shape (B, 8)
        Numbers on the run, in the order of `RUN`.
    clients : ndarray, shape (B, K, 7)
        Numbers on the clients, in the order of `CLIENT`.

    Returns
    -------
    ndarray of int64, shape (B, 8 + 7 K)
    """
    told = binned(clients, CLIENT).reshape(len(run), -1)
    return np.concatenate([binned(run, RUN), told], axis=1)


def spell(ids: Ids) -> str:
    """Return a text in words, for the record."""
    return " ".join(VOCABULARY[int(i)] for i in ids)
