"""Moments of rows that are measured from a public point, moved back afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import UserError, parse_run
from data import kmer_frequencies, moment_centre, moments_of

NOISED = ("privacy.moment_noise=4", "data.source=genomic", "features.kind=kmer")


@given(st.integers(0, 999))
def test_moved_moments_are_those_of_moved_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels, centre = rng.normal(size=(9, 3)), rng.integers(0, 2, 9), rng.normal(size=3)
    moved, direct = moments_of(rows, labels, 2).moved(centre), moments_of(rows + centre, labels, 2)
    for name, value in vars(direct).items():
        np.testing.assert_allclose(getattr(moved, name), value, atol=1e-12)
    back = moved.moved(-centre)
    np.testing.assert_allclose(back.second, moments_of(rows, labels, 2).second, atol=1e-10)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_centre_is_what_random_letters_have(k: int) -> None:
    letters = np.random.default_rng(0).choice(list("ACGT"), 400_000)
    found = kmer_frequencies(["".join(letters)], k)[0]
    np.testing.assert_allclose(moment_centre("random-letters", len(found)), found, atol=3e-3)
    assert moment_centre("random-letters", len(found)).sum() == pytest.approx(1.0)
    assert not moment_centre("zero", len(found)).any()


def test_a_centre_needs_noise_and_k_mers() -> None:
    parse_run([], [*NOISED, "privacy.moment_centre=random-letters"])
    for words in (NOISED[1:], (*NOISED[:2], "features.kind=one-hot")):
        with pytest.raises(UserError, match="moment_centre = 'random-letters' would be ignored"):
            parse_run([], [*words, "privacy.moment_centre=random-letters"])
