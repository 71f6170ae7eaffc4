"""The generated data set, and how its numbers were estimated."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from core import DataSettings
from data import linear_baseline, load_corpus
from data.chains import (
    Chains,
    chains_of,
    client_pull,
    pulled_split,
    stored_chains,
    write_windows,
)
from data.feature_kinds.kmer import kmer_frequencies
from data.partition import noisy_labels
from training.markov_fit import fit, transition_counts

REAL = Path(__file__).parents[3] / "shared" / "data" / "human_vs_worm" / "train.csv"
SMALL = DataSettings(train_rows=60, test_rows=40, server_rows=20)


def test_transition_counts_by_hand() -> None:
    # AAC and its other strand GTT: A->A, A->C, G->T, T->T, each count plus one.
    expected = np.ones((4, 4), dtype=int)
    expected[[0, 0, 2, 3], [0, 1, 3, 3]] += 1
    assert transition_counts(["AAC"], 1).tolist() == expected.tolist()
    # A letter N breaks the chain.
    assert transition_counts(["ANC"], 1).sum() == 16


@pytest.mark.skipif(not REAL.is_file(), reason="the real data is not here")
def test_stored_numbers_are_those_of_the_training_rows() -> None:
    stored = json.loads(files("data").joinpath("chains.json").read_text("utf-8"))
    assert fit(REAL) == stored


def test_stored_file_is_small_and_complete() -> None:
    text = files("data").joinpath("chains.json").read_text("utf-8")
    assert len(text) < 150_000
    chains = stored_chains()
    assert chains.classes == ("human", "worm")
    assert chains.order == 4
    np.testing.assert_allclose(chains.transition.sum(axis=2), 1)
    np.testing.assert_allclose(chains.start.sum(axis=1), 1)
    assert (chains.transition > 0).all()


def slow_window(chains: Chains, label: int, uniforms: np.ndarray) -> str:
    """Write one window letter by letter."""
    words = ["".join("ACGT"[word // 4**p % 4] for p in range(chains.order - 1, -1, -1))
             for word in range(4**chains.order)]  # fmt: skip
    word = int(np.searchsorted(np.cumsum(chains.start[label]), uniforms[1], side="right"))
    text = words[word]
    for number in uniforms[2:]:
        state = words.index(text[-chains.order :])
        sums = np.cumsum(chains.transition[label, state])
        text += "ACGT"[int(np.searchsorted(sums[:3], number, side="right"))]
    if uniforms[0] < 0.5:
        text = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
    return text


def test_windows_agree_with_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 20, (2, 64)).tolist()
    chains = chains_of(
        {"order": 2, "classes": ["a", "b"], "counts": dict(zip("ab", counts, strict=True))}
    )
    labels, uniforms = rng.integers(2, size=12), rng.random((12, 20))
    expected = [slow_window(chains, *row) for row in zip(labels, uniforms, strict=True)]
    assert list(write_windows(chains, labels, uniforms)) == expected


def test_generated_windows_follow_the_chains() -> None:
    """Transition shares of many windows are the probabilities within sampling error."""
    rng, chains = np.random.default_rng(1), stored_chains()
    labels = np.zeros(2000, dtype=np.int64)
    windows = write_windows(chains, labels, rng.random((2000, 198)))
    counts = transition_counts(windows, 4) - 1
    # Both strands are counted, and the fitted chain is strand-symmetric: shares agree.
    rows = counts.sum(axis=1, keepdims=True)
    error = np.abs(counts / rows - chains.transition[0])
    deviation = np.sqrt(chains.transition[0] * (1 - chains.transition[0]) / rows)
    assert (error < 5 * deviation + 0.005).mean() > 0.99


def test_corpus_is_what_it_says() -> None:
    corpus = load_corpus(DataSettings(), 0)
    assert corpus.name == "dna-demo (synthetic)"
    assert corpus.synthetic
    assert corpus.classes == ("human", "worm")
    assert corpus.validation is not None
    assert [len(s) for s in (corpus.train, corpus.validation, corpus.test)] == [1200, 300, 1000]
    assert {len(text) for text in corpus.train.texts} == {200}
    assert set("".join(corpus.train.texts)) == set("ACGT")
    assert np.bincount(corpus.train.labels).tolist() == [600, 600]
    assert 0.4 < corpus.train.labels[:100].mean() < 0.6
    assert not set(corpus.train.texts) & set(corpus.test.texts)


def test_same_seed_same_rows_and_test_rows_do_not_depend_on_training_rows() -> None:
    first, again, other = (load_corpus(SMALL, seed) for seed in (3, 3, 4))
    assert first.train.texts == again.train.texts
    assert first.train.texts != other.train.texts
    longer = load_corpus(DataSettings(train_rows=90, test_rows=40, server_rows=20), 3)
    assert longer.test.texts == first.test.texts


def test_the_letters_carry_the_label() -> None:
    corpus = load_corpus(DataSettings(train_rows=400, test_rows=400), 0)
    x, test_x = (kmer_frequencies(split.texts, 4) for split in (corpus.train, corpus.test))
    found = linear_baseline(x, corpus.train.labels, test_x, corpus.test.labels, 2, 0)
    assert found["accuracy"] > 0.93


def test_no_pull_gives_the_same_rows_and_full_pull_uniform_ones() -> None:
    corpus = load_corpus(SMALL, 0)
    rows = [5, 2, 59]
    same = pulled_split(SMALL, 0, "train", rows, 0.0)
    assert same.texts == corpus.train.take(rows).texts
    assert same.labels.tolist() == corpus.train.labels[rows].tolist()
    uniform = pulled_split(SMALL, 0, "train", range(60), 1.0)
    shares = kmer_frequencies(["".join(uniform.texts)], 1)[0]
    np.testing.assert_allclose(shares, 0.5, atol=0.03)


def test_pull_of_a_client_is_its_own_and_bounded() -> None:
    settings = DataSettings(heterogeneity=0.6)
    pulls = [client_pull(settings, 0, client) for client in range(50)]
    assert 0 <= min(pulls) < 0.1
    assert 0.5 < max(pulls) <= 0.6
    assert pulls[7] == client_pull(settings, 0, 7)
    assert client_pull(DataSettings(), 0, 7) == 0


@pytest.mark.parametrize("classes", [2, 4])
def test_noise_flips_exactly_its_share(classes: int) -> None:
    labels = np.arange(200) % classes
    noisy = noisy_labels(labels, 0.15, classes, np.random.default_rng(0))
    assert (noisy != labels).sum() == 30
    assert set(noisy) == set(range(classes))
    assert noisy_labels(labels, 0.0, classes, np.random.default_rng(0)).tolist() == labels.tolist()
