"""Estimate the Markov chains of `dna-demo` from real windows.

Run ``python -m training.markov_fit PATH [--order 4] [--output FILE]`` from the project's root,
PATH a csv of `seq,label` rows (0 human, 1 worm); it writes ``data/chains.json``. The file in
the project comes from the training rows of the human_vs_worm set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import write_text
from data.checks import checked_dna, number_labels
from data.feature_kinds.kmer import kmer_positions
from data.readers.columns import Wanted
from data.readers.delimited import read_delimited

CLASSES = ("human", "worm")


def transition_counts(sequences: Sequence[str], order: int) -> npt.NDArray[np.int64]:
    """Count which letter follows which context, on both strands, plus one (Laplace).

    Parameters
    ----------
    sequences : sequence of str
        Windows over A, C, G, T, N; a context or letter with an N is not counted.
    order : int
        Letters of a context.

    Returns
    -------
    ndarray of int64, shape (4**order, 4)
        Counts, each at least 1.
    """
    complement = str.maketrans("ACGT", "TGCA")
    both = [*sequences, *(sequence.translate(complement)[::-1] for sequence in sequences)]
    words, _ = kmer_positions(both, order + 1)
    return 1 + np.bincount(words, minlength=4 ** (order + 1)).reshape(-1, 4)


def fit(path: Path, order: int = 4) -> dict[str, Any]:
    """Estimate one chain a class from a csv file of `seq,label` rows.

    Returns
    -------
    dict
        The layout of ``chains.json``: about, order, classes, counts (class to a flat list of
        4**order * 4 whole numbers, contexts and letters in the order A, C, G, T).
    """
    columns = read_delimited(path, Wanted("seq", "label"))
    sequences, _ = checked_dna(columns.texts, columns.place)
    labels = number_labels(columns.labels, ("0", "1"), columns.place)
    counts = {
        name: transition_counts([sequences[row] for row in np.flatnonzero(labels == number)], order)
        for number, name in enumerate(CLASSES)
    }
    return {
        "about": "Transition counts on both strands, plus one, of the training windows of "
        "human_vs_worm (hg38 background; C. elegans WS282 and chrI); made by training.markov_fit.",
        "order": order,
        "classes": list(CLASSES),
        "counts": {name: table.ravel().tolist() for name, table in counts.items()},
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Estimate the chains of dna-demo.")
    parser.add_argument("path", type=Path, help="csv of seq,label rows, 0 human, 1 worm")
    parser.add_argument("--order", type=int, default=4, help="letters of a context")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parents[1] / "data" / "chains.json",
        help="where to",
    )
    given = parser.parse_args()
    table = fit(given.path, given.order)
    write_text(given.output, json.dumps(table, separators=(",", ":")) + "\n")
    print(f"{given.output}: {given.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
