"""Ansätze that are no good: one line each, which names the file and what is expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from core import QuantumSettings, SettingsError
from quantum import build_ansatz
from quantum.circuit import RX, trace_ansatz

GOOD = """
import pennylane as qml
import numpy as np

class Mine:
    def __init__(self, layers=1):
        self.layers = layers

    def shape(self, qubits, classes):
        return {shape}

    def circuit(self, features, weights, wires):
        qml.AngleEmbedding(features, wires=wires)
        for i in wires:
            qml.RY(weights[i], wires=i)
        {line}
{more}
"""
OBSERVABLES = """
    def observables(self, wires, classes):
        return {}
"""


def build(folder: Path, name: str, options: str = "", classes: int = 2, **changes: str) -> str:
    """Write a user's file, trace it, and return the message of the error."""
    parts = {"shape": "(qubits,)", "line": "pass", "more": "", **changes}
    (folder / f"{name}.py").write_text(GOOD.format(**parts))
    settings = QuantumSettings(model=f"{name}:Mine", options=options, qubits=3, readout="per-class")
    with pytest.raises(SettingsError) as caught:
        build_ansatz(settings, classes)
    assert "\n" not in str(caught.value)
    assert f"quantum.model = '{name}:Mine'" in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


CASES = {
    "chance": (
        {"line": "qml.RX(np.random.default_rng().random(), wires=0)"},
        r"circuit\(\) queues other gates at each call; accepted: the same gates at each call",
    ),
    "index": ({"line": "qml.RY(weights[3], wires=0)"}, "line 1[0-9] raises IndexError: index 3 is"),
    "unused": ({"shape": "(2 * qubits,)"}, r"does not use 3 of its 6 weights \(the first is numb"),
    "rank": (
        {"shape": "(qubits, 2)"},
        r"circuit\(\): an angle is an array of shape \(2,\)",
    ),
    "none": ({"shape": "(0,)"}, r"has no trainable weights: shape\(\) returns \(0,\)"),
    "word": ({"shape": "'many'"}, r"shape\(\) returns 'many'; accepted: a tuple of whole numbers"),
    "raises": ({"line": "raise KeyError('x')"}, r"raises\.py, line 1[0-9] raises KeyError"),
    "measures": ({"line": "qml.expval(qml.Z(0))"}, r"circuit\(\): .*measures; accepted: gates"),
    "returns": ({"line": "return qml.expval(qml.Z(0))"}, r"circuit\(\)[ :].*(returns|measures)"),
    "wires": (
        {"line": "qml.CNOT([0, 3])"},
        r"CNOT acts on wires \[0, 3\]; accepted: .*\[0, 1",
    ),
    "state": ({"line": "qml.AmplitudeEmbedding(features, 0)"}, "raises|cannot be traced"),
    "reads": (
        {"line": "float(features[0]) > 0"},
        "TypeError: features and weights have no values",
    ),
    "branch": ({"line": "0 if weights[0] > 0 else 1"}, "raises TypeError: '>' not supported"),
    "zero": ({"line": "0 if weights[0] == 0 else 1"}, "TypeError: features and weights have no"),
    "among": ({"line": "weights[0] in (0, 1)"}, "TypeError: features and weights have no values"),
    "doubled": (
        {"line": "qml.QubitUnitary(2 * np.eye(4), wires=[0, 1])"},
        r"circuit\(\): the matrix of a QubitUnitary is not unitary",
    ),
    "many": ({"more": OBSERVABLES.format("[0, 1]"), "classes": "3"}, "returns 2 .* for 3 classes"),
    "far": ({"more": OBSERVABLES.format("[7]")}, r"measures wires \[7\]; accepted: some of \[0, 1"),
    "both": (
        {"more": OBSERVABLES.format("[qml.Z(0), qml.X(0), qml.Z(1)]"), "classes": "3"},
        "measures Z and X of wire 0; accepted: one of X, Y, Z for each wire",
    ),
    "wide": (
        {"more": OBSERVABLES.format("[qml.Hermitian(np.eye(8), wires=[0, 1, 2])]")},
        r"observables\(\): .* is no sum of Pauli words",
    ),
    "text": (
        {"more": OBSERVABLES.format("[{0: 'x'}]")},
        r"has 0: 'x'; accepted: a number for each",
    ),
    "twice": (
        {"more": OBSERVABLES.format("[{(0, 0): 1.0}]")},
        r"has \(0, 0\): 1.0; .* different w",
    ),
    "fails": ({"more": OBSERVABLES.format("1 / 0")}, r"fails\.py, line 1[0-9] raises ZeroDivision"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_one_line_that_names_the_file(here: Path, name: str) -> None:
    changes, message = CASES[name]
    chosen = dict(changes)
    classes = int(chosen.pop("classes", "2"))
    found = build(here, name, classes=classes, **chosen)
    assert f"{name}.py" in found
    assert re.search(message, found), found


def test_options_reach_the_class_or_are_refused(here: Path) -> None:
    parts = {"shape": "(qubits,)", "line": "assert self.layers == 2", "more": ""}
    (here / "optioned.py").write_text(GOOD.format(**parts))
    settings = QuantumSettings(model="optioned:Mine", options="layers=2", qubits=3)
    assert build_ansatz(settings, 2).angles == 3
    found = build(here, "unknown_option", options="depth=2")
    assert "depth" in found
    assert "unknown_option" in found


def test_what_is_no_ansatz(here: Path) -> None:
    (here / "empty.py").write_text("class Mine:\n    pass\n")
    settings = QuantumSettings(model="empty:Mine", qubits=3)
    with pytest.raises(SettingsError, match=r"has no circuit\(\); accepted: an object with"):
        build_ansatz(settings, 2)


def test_the_source_of_own_circuits_is_in_their_identity(here: Path) -> None:
    """Two circuits of one name are two in the caches of devices."""
    names = []
    for name, line in (("first", "qml.S(0)"), ("second", "qml.T(0)")):
        parts = {"shape": "(qubits,)", "line": line, "more": ""}
        (here / f"{name}.py").write_text(GOOD.format(**parts))
        names.append(
            repr(
                build_ansatz(
                    QuantumSettings(model=f"{name}:Mine", qubits=3, readout="per-class"), 2
                )
            )
        )
    assert names[0].startswith("Mine(n_qubits=3, readouts=1)")
    assert names[0] != names[1]


class Sums:
    def circuit(self, features: Any, weights: Any, wires: Any) -> None:
        RX(weights[0], 0)

    def shape(self, qubits: int, classes: int) -> tuple[int, ...]:
        return (1,)

    def observables(self, wires: Any, classes: int) -> Any:
        return [{(0, 1): 0.25, (1, 0): 0.5, 0: 1}]


def test_products_of_the_same_wires_add_up() -> None:
    assert trace_ansatz(Sums(), 2).readouts == (((0.75, (0, 1)), (1.0, (0,))),)


def test_a_linear_head_sees_the_observables_that_an_ansatz_names() -> None:
    circuit = trace_ansatz(Sums(), 2, 3, readout="linear")
    assert circuit.readouts == (((0.75, (0, 1)), (1.0, (0,))),)
    with pytest.raises(SettingsError, match=r"'linear-zz' with 'Sums'.*accepted: linear, a head"):
        trace_ansatz(Sums(), 2, readout="linear-zz")
