"""Which ansätze are layers behind layers, and what a circuit of the first ones computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from core import QuantumSettings, SettingsError, registry, with_layers
from quantum import build_classifier, depths, first_layers
from quantum.circuit.recorder import RY

LAYERWISE = ("product", "strongly-entangling", "vqc")


def test_what_ships_and_is_layerwise() -> None:
    names = registry.shipped("ansatz")
    found = [name for name in names if registry.declared("ansatz", name, "layerwise", False)]
    assert tuple(sorted(found)) == LAYERWISE


@pytest.mark.parametrize("model", LAYERWISE)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("readout", ["linear", "per-class"])
def test_fewer_layers_are_the_first_ones(model: str, classes: int, readout: Any) -> None:
    settings = QuantumSettings(model=model, reps=3, qubits=3, readout=readout)
    found = depths(settings, classes)
    assert sorted(found.values()) == [1, 2, 3]
    each = 9 if model != "vqc" else 3
    assert list(found) == [each * (n + (model == "vqc")) for n in (1, 2, 3)]


def test_uploads_of_layers_that_are_not_there_are_left_out() -> None:
    settings = QuantumSettings(model="product", reps=3, uploads=2, qubits=2)
    assert list(depths(settings, 2)) == [6, 12, 18]
    assert with_layers(settings, 1).uploads == 1


class Reversed:
    """Says that it is layerwise, and takes the last layer's weights first."""

    layerwise: ClassVar[bool] = True

    def __init__(self, reps: int) -> None:
        self.reps = reps

    @classmethod
    def from_settings(cls, settings: Any) -> Reversed:
        return cls(settings.reps)

    def circuit(self, features: Any, weights: Any, wires: Sequence[int]) -> None:
        for place, wire in enumerate(wires):
            RY(features[..., place], wire)
        for layer in reversed(range(self.reps)):
            for place, wire in enumerate(wires):
                RY(weights[layer, place], wire)

    def shape(self, qubits: int, classes: int = 2) -> tuple[int, int]:
        return self.reps, qubits


def test_an_ansatz_that_only_says_so_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum.circuit.trace.build", lambda *given: Reversed(given[2].reps))
    depths.cache_clear()
    with pytest.raises(SettingsError, match="1 of 2 layers are not the first ones"):
        depths(QuantumSettings(model="vqc", reps=2, qubits=2), 2)
    depths.cache_clear()


def test_first_layers_are_the_first_angles() -> None:
    classifier = build_classifier(QuantumSettings(model="product", reps=2, qubits=2), 2)
    whole = classifier.initial(0)
    shallow = first_layers(whole, 6)
    np.testing.assert_array_equal(shallow["angles"], whole["angles"][:6])
    assert shallow["weights"] is whole["weights"]
    assert first_layers(whole, 12) is whole


def test_a_later_layer_of_no_rotation_changes_nothing() -> None:
    """Second method: the product's deep circuit with a second layer of zeros is the shallow one."""
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3))
    deep = build_classifier(QuantumSettings(model="product", reps=2, qubits=3), 2)
    shallow = build_classifier(QuantumSettings(model="product", reps=1, qubits=3), 2)
    whole = deep.initial(0)
    whole["angles"][9:] = 0
    np.testing.assert_allclose(
        deep.probabilities(whole, deep.prepare(x)),
        shallow.probabilities(first_layers(whole, 9), shallow.prepare(x)),
        atol=1e-6,
    )
