"""The synthetic data set `dna-demo`: human or worm windows from two Markov chains.

The chains (order 4) were estimated from real sequence by `training.markov_fit`; their transition
counts are kept in ``chains.json``. No row of real data is among what is generated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from core import DataSettings
from data.rows import SERVER_ROWS, Labels, Split, generator

NAME = "dna-demo (synthetic)"
LENGTH = 200
TRAIN_ROWS = 1200
TEST_ROWS = 1000
_LETTERS = np.frombuffer(b"ACGT", dtype=np.uint8)


@dataclass(frozen=True)
class Chains:
    """One Markov chain a class.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    order : int
        Letters that the next one depends on.
    start : ndarray of float64, shape (classes, 4**order)
        Probability of a window's first letters.
    transition : ndarray of float64, shape (classes, 4**order, 4)
        Probability of the next letter.
    """

    classes: tuple[str, ...]
    order: int
    start: npt.NDArray[np.float64]
    transition: npt.NDArray[np.float64]

    def pulled(self, pull: float) -> Chains:
        """Mix with uniform letters: 0 leaves the chains as they are, 1 removes all signal."""
        return Chains(
            self.classes,
            self.order,
            (1 - pull) * self.start + pull / 4**self.order,
            (1 - pull) * self.transition + pull / 4,
        )


def chains_of(table: dict[str, Any]) -> Chains:
    """Turn a table of transition counts (the layout of ``chains.json``) into probabilities."""
    order = int(table["order"])
    shape = (len(table["classes"]), 4**order, 4)
    counts = np.array([table["counts"][name] for name in table["classes"]], float).reshape(shape)
    context = counts.sum(axis=2)
    return Chains(
        tuple(table["classes"]),
        order,
        context / context.sum(axis=1, keepdims=True),
        counts / context[:, :, None],
    )


@cache
def stored_chains() -> Chains:
    """Read the chains that come with the package."""
    return chains_of(json.loads(files("data").joinpath("chains.json").read_text("utf-8")))


def write_windows(
    chains: Chains, labels: Labels, uniforms: npt.NDArray[np.float64]
) -> tuple[str, ...]:
    """Turn uniform numbers into windows by inverting the chains' distributions.

    Parameters
    ----------
    chains : Chains
        The chains.
    labels : ndarray of int64, shape (rows,)
        Class of each window.
    uniforms : ndarray of float64, shape (rows, 2 + length - order)
        Numbers in [0, 1): one for the strand, one for the first letters, one a further letter.

    Returns
    -------
    tuple of str
        Windows of `length` letters over A, C, G, T; half of them on the other strand.
    """
    rows, order = len(labels), chains.order
    start = np.cumsum(chains.start, axis=1)
    following = np.cumsum(chains.transition, axis=2)[:, :, :3]
    letters = np.empty((rows, order + uniforms.shape[1] - 2), dtype=np.uint8)
    # The last sum may fall short of 1 by rounding: the state stays in range all the same.
    state = np.minimum(
        (uniforms[:, 1, None] >= start[labels]).sum(axis=1), 4**order - 1, dtype=np.int64
    )
    for place in range(order):
        letters[:, place] = state // 4 ** (order - 1 - place) % 4
    for place in range(order, letters.shape[1]):
        drawn = uniforms[:, place - order + 2, None]
        letter = (drawn >= following[labels, state]).sum(axis=1)
        letters[:, place] = letter
        state = (state * 4 + letter) % 4**order
    other_strand = uniforms[:, 0] < 0.5
    letters[other_strand] = 3 - letters[other_strand, ::-1]
    text = _LETTERS[letters].tobytes().decode("ascii")
    length = letters.shape[1]
    return tuple(text[row * length : (row + 1) * length] for row in range(rows))


def _chance(seed: int, split: str, rows: int, order: int) -> tuple[Labels, npt.NDArray[np.float64]]:
    """Draw labels (as many of each class, shuffled) and the uniform numbers of a split."""
    labels = generator(seed, f"dna-demo {split} labels").permutation(
        np.arange(rows, dtype=np.int64) % 2
    )
    uniforms = generator(seed, f"dna-demo {split} letters").random((rows, 2 + LENGTH - order))
    return labels, uniforms


def split_rows(settings: DataSettings, split: str) -> int:
    """Rows of the split ``"train"``, ``"validation"`` or ``"test"``."""
    return {
        "train": settings.train_rows or TRAIN_ROWS,
        "validation": settings.server_rows or SERVER_ROWS,
        "test": settings.test_rows or TEST_ROWS,
    }[split]


def demo_split(settings: DataSettings, seed: int, split: str) -> Split:
    """Generate one split of the data set, without heterogeneity and label noise."""
    chains = stored_chains()
    labels, uniforms = _chance(seed, split, split_rows(settings, split), chains.order)
    return Split(write_windows(chains, labels, uniforms), labels)


def client_pull(settings: DataSettings, seed: int, client: int) -> float:
    """How far a client's chains are pulled to uniform letters, in [0, heterogeneity]."""
    return float(generator(seed, "dna-demo pull", client).uniform(0, settings.heterogeneity))


def pulled_split(
    settings: DataSettings, seed: int, split: str, rows: npt.ArrayLike, pull: float
) -> Split:
    """Generate some rows of a split again, from chains pulled towards uniform letters.

    They come from the same uniform numbers: a pull of 0 gives the rows of `demo_split`.
    """
    chains = stored_chains()
    chosen = np.asarray(rows, dtype=np.intp)
    labels, uniforms = _chance(seed, split, split_rows(settings, split), chains.order)
    return Split(
        write_windows(chains.pulled(pull), labels[chosen], uniforms[chosen]), labels[chosen]
    )
