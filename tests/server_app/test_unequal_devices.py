"""Whole runs on unequal devices: what each site's update weighs."""

from __future__ import annotations

import numpy as np
import pytest

from client_app.device_weight import LEAST
from core.messages import Parameters
from strategies.aggregations.weighted import weighted
from tests.conftest import Federate

UNEQUAL = (
    "quantum.backend=exact,exact,aer:fake_manila",
    "run.clients=3",
    "run.rounds=1",
    "hardware.shots=32",
    "hardware.layout_trials=1",
    "train.batch_rows=4",
    "train.steps=2",
    "data.train_rows=120",
    "data.val_fraction=0.1",
    "distill.weight=0",
    "agent.kind=all",
)


@pytest.mark.parametrize("weighting", ["rows", "noise"])
def test_a_noisy_device_weighs_less_than_its_rows(
    federate: Federate, monkeypatch: pytest.MonkeyPatch, weighting: str
) -> None:
    seen: list[np.ndarray] = []

    def noted(self: object, updates: object, weights: np.ndarray, reference: object) -> Parameters:
        seen.append(weights)
        return weighted(updates, weights, reference)  # type: ignore[arg-type]

    monkeypatch.setattr("strategies.aggregations.weighted.Weighted.__call__", noted)
    ran = federate(*UNEQUAL, f"aggregation.weighting={weighting}")
    factors = [event["weight"] for event in ran.events("client")]
    rows = [event["rows"] for event in ran.events("client")]
    if weighting == "rows":
        assert factors == [1, 1, 1]
    else:
        assert factors[:2] == [1, 1]
        assert LEAST <= factors[2] < 0.5
    np.testing.assert_allclose(seen[0], np.multiply(rows, factors))
