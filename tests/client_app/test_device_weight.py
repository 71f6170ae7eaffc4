"""What a site's device is worth: the closed form, its bounds, and the best of all weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_app.device_weight import LEAST, device_weight

NOISES = st.floats(0, 1e12) | st.just(math.inf)


def test_an_exact_simulator_weighs_its_rows() -> None:
    assert device_weight(0.0, 0.0) == 1.0


def test_the_closed_form() -> None:
    assert device_weight(0.2, 1.0) == pytest.approx(0.8 / 2)
    assert device_weight(0.5, 0.25) == pytest.approx(0.5 / 1.25)


@given(st.floats(0, 1), NOISES)
def test_no_site_can_raise_its_weight_and_none_is_silenced(error: float, noise: float) -> None:
    assert LEAST <= device_weight(error, noise) <= 1.0


@given(st.floats(0, 0.9), st.floats(0, 0.1), NOISES, st.floats(0, 10))
def test_a_worse_device_never_weighs_more(
    error: float, more: float, noise: float, louder: float
) -> None:
    assert device_weight(error + more, noise) <= device_weight(error, noise)
    assert device_weight(error, noise + louder) <= device_weight(error, noise)


def test_no_other_weights_have_a_higher_signal_to_noise_ratio() -> None:
    """Second method: the ratio itself, of these weights and of 2,000 random ones."""
    errors, noises = np.array([0.0, 0.0, 0.3, 0.6]), np.array([0.0, 0.0, 1.5, 4.0])
    rows = np.array([100, 250, 80, 300])
    factors = [device_weight(*pair) for pair in zip(errors, noises, strict=True)]
    variances = (1 + noises) / rows  # what differs between sites is as large as the update

    def ratio(weights: np.ndarray) -> float:
        return float((weights @ (1 - errors)) ** 2 / (weights**2 @ variances))

    best = ratio(rows * np.array(factors))
    draws = np.random.default_rng(0).exponential(1.0, (2000, 4))
    assert best >= max(ratio(one) for one in draws)
    assert best > 1.2 * ratio(rows.astype(float))
