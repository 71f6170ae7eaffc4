"""Prior correction: the fit in closed form and against a second method, and in a whole run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.optimize import minimize
from scipy.special import softmax

from server_app.prior import fitted_shift, prior_correction, row_losses
from tests.conftest import NO_TEACHER, Federate

SHARES = np.array([0.7, 0.2, 0.1])


def test_a_model_that_knows_nothing_is_shifted_to_the_shares_of_the_classes() -> None:
    labels = np.repeat(np.arange(3), (7000, 2000, 1000))
    shift = fitted_shift(np.zeros((len(labels), 3)), labels, np.ones(len(labels)))
    np.testing.assert_allclose(shift, np.log(SHARES) - np.log(SHARES).mean(), atol=2e-3)
    assert shift.sum() == pytest.approx(0)


def sampled(rows: int, off: np.ndarray, seed: int = 0) -> tuple[Any, Any]:
    """Return the probabilities of a model that is off by a shift, and labels that it is off of."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 3))
    truth = softmax(logits, axis=1)
    labels = np.array([rng.choice(3, p=p) for p in truth])
    return softmax(logits + off, axis=1), labels


@pytest.mark.parametrize("balanced", [False, True])
def test_the_fit_is_a_general_optimisers(balanced: bool) -> None:
    p, labels = sampled(150, np.array([1.5, 0.0, -1.0]))
    logits = np.log(p)
    counts = np.bincount(labels)
    weights = len(labels) / (3 * counts[labels]) if balanced else np.ones(len(labels))

    def loss(shift: np.ndarray) -> float:
        return float(weights @ row_losses(logits + shift, labels) + shift @ shift / 2)

    wanted = minimize(loss, np.zeros(3), tol=1e-10).x
    found = prior_correction(p, labels, balanced, 0).shift
    np.testing.assert_allclose(found, wanted - wanted.mean(), atol=1e-4)


def test_a_shift_pays_where_the_model_is_off_and_not_where_it_is_right() -> None:
    off = prior_correction(*sampled(400, np.array([1.5, 0.0, -1.0])), False, 0)
    assert off.pays
    np.testing.assert_allclose(off.shift, [-1.67, -0.17, 0.83], atol=0.5)
    right = [prior_correction(*sampled(400, np.zeros(3), seed), False, 0) for seed in range(10)]
    assert sum(one.pays for one in right) <= 2  # by chance, one in six


def test_a_class_without_rows_keeps_its_place() -> None:
    found = prior_correction(np.full((40, 3), 1 / 3), np.zeros(40, np.int64), True, 0)
    assert np.isfinite(found.shift).all()
    assert found.shift[1] == pytest.approx(found.shift[2])


@pytest.mark.parametrize("readout", ["per-class", "linear"])
def test_a_run_keeps_the_shifted_model(federate: Federate, readout: str) -> None:
    given = ("run.rounds=1", "train.steps=1", f"quantum.readout={readout}", *NO_TEACHER)
    plain = federate(*given, "evaluation.prior_correction=none")
    ran = federate(*given, "evaluation.prior_correction=auto")
    found = ran.summary["prior_correction"]
    assert found["applied"] == (found["gain"] > found["error"])
    assert "prior_correction" not in plain.summary
    before, after = (load_file(one.folder / "model.safetensors")["bias"] for one in (plain, ran))
    shift = np.array(found["shift"]) * found["applied"]
    change = shift if len(after) == 2 else shift[1:] - shift[0]
    np.testing.assert_allclose(after - before, change, atol=1e-5)
    if readout == "per-class":  # a first scale of 4, and one step: far from every prior
        assert found["applied"]
        assert ran.summary["test"]["loss"] < plain.summary["test"]["loss"]
