"""Whole runs of sites whose circuits have unequal depths."""

from __future__ import annotations

import numpy as np
import pytest

from client_app.process_cache import settings_of
from core import SettingsError
from core.messages import Parameters
from strategies import aggregation
from strategies.aggregators import Contribution
from tests.conftest import Federate

SMALL = (
    "quantum.model=strongly-entangling",
    "quantum.reps=2",
    "quantum.layers=2,1,2,1",
    "run.clients=4",
    "run.rounds=2",
    "train.steps=3",
    "data.train_rows=160",
    "distill.weight=0",
    "agent.kind=all",
    "aggregation.clip_radius=1e6",
)
FIRST = 12  # angles of a layer of 4 qubits


def test_the_second_layer_comes_from_the_deep_sites_only(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[Contribution], Parameters]] = []
    real = aggregation.Aggregator.aggregate

    def noted(self, server_round, parts, reference):  # type: ignore[no-untyped-def]
        found = real(self, server_round, parts, reference)
        seen.append((list(parts), found))
        return found

    monkeypatch.setattr("strategies.aggregators.Aggregator.aggregate", noted)
    ran = federate(*SMALL)
    parts, found = seen[0]
    lacking = [int(np.isnan(one.arrays["angles"]).sum()) for one in parts]
    assert lacking == [0, FIRST, 0, FIRST]
    weights = np.array([one.weight for one in parts])
    angles = np.stack([one.arrays["angles"] for one in parts])
    np.testing.assert_allclose(
        found["angles"][:FIRST], weights @ angles[:, :FIRST] / weights.sum(), rtol=1e-6
    )
    deep = np.array([0, 2])
    np.testing.assert_allclose(
        found["angles"][FIRST:],
        weights[deep] @ angles[deep, FIRST:] / weights[deep].sum(),
        rtol=1e-6,
    )
    # A step's price is that of each site's own circuit.
    steps = {e["client"]: e["circuits"] for e in ran.events("client") if e["round"] == 1}
    assert steps[1] < 0.6 * steps[0]


def test_the_same_depth_everywhere_gives_the_same_digits(federate: Federate) -> None:
    whole = [text for text in SMALL if "layers" not in text]
    plain = federate(*whole)
    named = federate(*whole, "quantum.layers=2")
    assert [e["loss"] for e in plain.events("round")] == [e["loss"] for e in named.events("round")]


def test_credit_of_a_shallow_model_is_that_of_it_with_the_global_layers(federate: Federate) -> None:
    ran = federate(*[t for t in SMALL if "agent" not in t], "agent.kind=frugal")
    assert len(ran.events("round")) == 2


def test_a_node_may_not_be_shallow_alone() -> None:
    run = {"quantum.model": "vqc", "quantum.reps": 2}
    with pytest.raises(SettingsError, match="of this node, and none of the run"):
        settings_of(run, {"quantum.layers": "1"})
    assert settings_of({**run, "quantum.layers": "2"}, {"quantum.layers": "1"})
