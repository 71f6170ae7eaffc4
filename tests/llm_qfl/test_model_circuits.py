"""The trained circuit gives the same expectations in PennyLane, Qiskit and OpenQASM 3."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import UserError
from llm_qfl.model import Model, load
from tests.conftest import NO_TEACHER, Federate
from tests.llm_qfl.models import write_tiny

ROWS = ["AATTAACCGGTATACG" * 3, "GGCCGGCAATGCGCGC" * 3, "ACGTACGTTTGACCAT" * 3]


def probabilities(model: Model, z: np.ndarray) -> np.ndarray:
    """Turn expectations (rows, K) into probabilities."""
    weights = np.exp(z @ model.parameters["weights"].T + model.parameters["bias"])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def trained(federate_once: Federate) -> Model:
    ran = federate_once("run.rounds=1", "quantum.precision=double", *NO_TEACHER)
    return load(ran.folder)


def test_in_pennylane(trained: Model) -> None:
    import pennylane as qml

    angles = trained.angles(ROWS).astype(np.float64)
    device = qml.device("default.qubit", wires=angles.shape[1])
    z = np.stack(qml.QNode(trained.circuit("pennylane"), device)(angles), axis=1)
    assert np.allclose(probabilities(trained, z), trained.predict_proba(ROWS), atol=1e-6)


def expectations(model: Model, circuit: Any, angles: np.ndarray) -> list[float]:
    """Bind a circuit of Qiskit's to a row, and read it out."""
    from qiskit.quantum_info import Statevector

    values = {p: angles[int(p.name.removeprefix("feature"))] for p in circuit.parameters}
    state = Statevector(circuit.assign_parameters(values))
    return [float(state.expectation_value(o).real) for o in model.observables("qiskit")]


def test_in_qiskit(trained: Model) -> None:
    circuit = trained.circuit("qiskit")
    assert {p.name for p in circuit.parameters} == {f"feature{k}" for k in range(4)}
    z = [expectations(trained, circuit, row) for row in trained.angles(ROWS)]
    assert np.allclose(probabilities(trained, np.array(z)), trained.predict_proba(ROWS), atol=1e-6)


GATE = re.compile(r"(\w+)(?:\(([^)]*)\))? ((?:q\[\d+\](?:, )?)+);")


def run_program(program: str, values: dict[str, float]) -> np.ndarray:
    """Run the gates of a program line by line; return Z of the qubits that it measures."""
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import SparsePauliOp, Statevector

    size = int(re.findall(r"qubit\[(\d+)\] q;", program)[0])
    circuit = QuantumCircuit(size)
    gates = [gate for gate in GATE.findall(program) if gate[0] not in ("measure", "input")]
    for name, given, wires in gates:
        numbers = eval(f"[{given}]", {"pi": np.pi, **values})  # its own arithmetic
        getattr(circuit, name)(*numbers, *map(int, re.findall(r"\d+", wires)))
    measured = [int(n) for n in re.findall(r"= measure q\[(\d+)\];", program)]
    state = Statevector(circuit)
    each = [SparsePauliOp.from_sparse_list([("Z", [n], 1)], size) for n in measured]
    return np.array([state.expectation_value(one).real for one in each])


def test_in_openqasm(trained: Model) -> None:
    program = trained.circuit("qasm3")
    assert program.startswith("OPENQASM 3")
    assert re.findall(r"input float\[64\] (\w+);", program) == [f"feature{k}" for k in range(4)]
    rows = trained.angles(ROWS)
    z = [run_program(program, {f"feature{k}": float(x) for k, x in enumerate(r)}) for r in rows]
    assert np.allclose(probabilities(trained, np.array(z)), trained.predict_proba(ROWS), atol=1e-6)


def test_another_form_is_one_line(tmp_path: Path) -> None:
    model = load(write_tiny(tmp_path / "tiny"))
    with pytest.raises(UserError, match="a circuit as 'cirq'; accepted: pennylane, qiskit, qasm3"):
        model.circuit("cirq")  # type: ignore[arg-type]
