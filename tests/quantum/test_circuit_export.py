"""A trained circuit in PennyLane, Qiskit and OpenQASM 3: the exact engine's expectations."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch

from core import QuantumSettings, SettingsError
from quantum import Classifier, build_classifier, circuit_as, observables_as
from quantum.circuit import trace_ansatz
from quantum.engines.exact import open_exact
from tests.quantum.odd_circuits import ODD

TRAINED = np.random.default_rng(3)


def shipped(model: str, classes: int, **chosen: Any) -> Classifier:
    settings = QuantumSettings(model=model, qubits=3, precision="double", **chosen)
    return build_classifier(settings, classes)


def odd(kind: type) -> Classifier:
    circuit = trace_ansatz(kind(), 3, 3)
    return Classifier(circuit, open_exact(circuit, "double"), 3)


MODELS = [
    shipped("qcnn", 2, uploads=2, readout="per-class"),
    shipped("qcnn", 3, block="paper", readout="per-class"),
    shipped("vqc", 2, readout="per-class"),
    shipped("product", 3, readout="per-class"),
    shipped("strongly-entangling", 2, readout="per-class"),
    shipped("ttn", 2, readout="linear"),
    shipped("qcnn", 5, readout="linear-zz"),
    *map(odd, ODD),
]
IDS = [model.describe() for model in MODELS]


def drawn(model: Classifier) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return parameters, two rows of features, and the expectations (rows, R)."""
    angles = TRAINED.normal(size=model.angles)
    parameters = {**model.initial(0), "angles": angles}
    x = TRAINED.uniform(-1.5, 1.5, (2, 3))
    z = model.expectations(torch.from_numpy(angles), model.engine.prepare(x))
    return parameters, x, z.numpy()


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_pennylane_gives_the_same_expectations(model: Classifier) -> None:
    parameters, x, z = drawn(model)
    node = qml.QNode(circuit_as(model, parameters, "pennylane"), qml.device("default.qubit"))
    np.testing.assert_allclose([node(row) for row in x], z, atol=1e-12)
    np.testing.assert_allclose(np.stack(node(x), axis=1), z, atol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_qiskit_gives_the_same_expectations(model: Classifier) -> None:
    from qiskit.quantum_info import Statevector

    parameters, x, z = drawn(model)
    circuit = circuit_as(model, parameters, "qiskit")
    assert {p.name for p in circuit.parameters} == {"feature0", "feature1", "feature2"}
    observables = observables_as(model, "qiskit")
    for row, expected in zip(x, z, strict=True):
        values = {p: row[int(p.name.removeprefix("feature"))] for p in circuit.parameters}
        state = Statevector(circuit.assign_parameters(values))
        found = [state.expectation_value(one).real for one in observables]
        np.testing.assert_allclose(found, expected, atol=1e-12)


DECLARATIONS = {"OPENQASM", "include", "input", "bit", "qubit", "readout"}
STATEMENT = re.compile(r"^(\w+)(?:\((.*)\))? (q\[\d+\](?:, q\[\d+\])*);$")
NAMES = {"h": "Hadamard", "s": "S", "t": "T", "x": "X", "y": "Y", "z": "Z", "cx": "CNOT"} | {
    name.lower(): name for name in ("RX", "RY", "RZ", "CZ", "SWAP")
}


def run_qasm(program: str, row: np.ndarray, measured: list[Any]) -> list[float]:
    """Run a program of standard gates, read by hand."""
    known = {f"feature{i}": value for i, value in enumerate(row)}
    known |= {name: getattr(math, name) for name in ("pi", "sin", "cos", "exp")}

    def circuit() -> list[Any]:
        for line in program.splitlines():
            if (found := STATEMENT.match(line)) is None:
                assert not line or re.split(r"\W", line)[0] in DECLARATIONS, line
                continue
            name, angle, qubits = found.groups()
            wires = [int(w) for w in re.findall(r"\d+", qubits)]
            angles = [eval(angle, {"__builtins__": {}}, known)] if angle else []
            getattr(qml, NAMES[name])(*angles, wires=wires)
        return [qml.expval(one) for one in measured]

    return [float(z) for z in qml.QNode(circuit, qml.device("default.qubit", wires=3))()]


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_openqasm_gives_the_same_expectations(model: Classifier) -> None:
    parameters, x, z = drawn(model)
    program = circuit_as(model, parameters, "qasm3")
    assert program.startswith("OPENQASM 3")
    wires = [int(w) for w in re.findall(r"measure q\[(\d+)\]", program)]
    assert wires == list(model.ansatz.readout_wires)
    measured = observables_as(model, "pennylane")
    for row, expected in zip(x, z, strict=True):
        np.testing.assert_allclose(run_qasm(program, row, measured), expected, atol=1e-9)


def test_other_forms_and_shapes_are_refused() -> None:
    model = MODELS[0]
    with pytest.raises(SettingsError, match=r"as 'cirq'; accepted: pennylane, qiskit, qasm3"):
        circuit_as(model, model.initial(0), "cirq")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"angles have shape \(1,\)"):
        circuit_as(model, {"angles": np.zeros(1)}, "qasm3")
