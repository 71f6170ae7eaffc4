"""Tracing, transpiling and the noise of a part of a device: the unitary stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum.circuit import Circuit
from quantum.circuit.to_qiskit import join_couplings, to_qiskit
from quantum.engines.devices.aer import compact, noise_of, part_of, used_qubits
from quantum.engines.devices.circuits import Compiled, compile_circuit
from quantum.engines.exact.engine import ExactEngine
from tests.quantum.conftest import qcnn, vqc

ANSAETZE = (
    qcnn(2),
    qcnn(3, 3),
    qcnn(4),
    qcnn(4, 3),
    qcnn(5, block="paper"),
    qcnn(3, uploads=3),
    vqc(3),
    vqc(4, 2, feature_reps=2, reps=2),
)

angle = st.floats(-7, 7)


@settings(deadline=None, max_examples=30)
@given(angle, angle, angle)
def test_three_cnots_are_the_three_couplings(x: float, y: float, z: float) -> None:
    six = [qml.IsingXX(x, wires=[2, 1]), qml.IsingYY(y, wires=[2, 1]), qml.IsingZZ(z, wires=[2, 1])]
    three = join_couplings(six)
    assert sum(op.name == "CNOT" for op in three) == 3
    overlap = np.trace(_matrix(six).conj().T @ _matrix(three)) / 4
    assert abs(overlap) == pytest.approx(1.0, abs=1e-9)


def _matrix(ops: list[Any]) -> np.ndarray:
    return np.asarray(qml.matrix(qml.tape.QuantumScript(ops), wire_order=[2, 1]))


def test_couplings_on_different_pairs_are_left_alone() -> None:
    ops = [qml.IsingXX(1.0, wires=[0, 1]), qml.IsingYY(1.0, wires=[1, 2]), qml.RX(0.1, wires=0)]
    assert join_couplings(ops) == ops


def points(ansatz: Circuit, rows: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles (P,), features (rows, n), and the exact engine's expectations (rows, R)."""
    rng = np.random.default_rng(11)
    angles = rng.normal(0, 1, ansatz.angles)
    features = rng.uniform(-1.5, 1.5, (rows, ansatz.n_qubits))
    engine = ExactEngine(ansatz, "double")
    exact = engine.expectations(torch.from_numpy(angles), engine.prepare(features))
    return angles, features, exact.numpy()


def expectations(circuit: Any, values: dict[str, float], qubits: tuple[int, ...]) -> np.ndarray:
    from qiskit.quantum_info import SparsePauliOp, Statevector

    bound = circuit.assign_parameters({p: values[p.name] for p in circuit.parameters})
    state = Statevector(bound)
    size = circuit.num_qubits
    ops = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], size) for q in qubits]
    return np.array([state.expectation_value(op).real for op in ops])


@pytest.mark.parametrize("ansatz", ANSAETZE, ids=lambda a: a.describe())
def test_traced_circuit_is_the_exact_engines(ansatz: Circuit) -> None:
    traced, names = to_qiskit(ansatz)
    angles, features, exact = points(ansatz)
    assert len(names) == ansatz.angles + ansatz.n_qubits
    for row, wanted in zip(features, exact, strict=True):
        values = dict(zip(names, [*angles, *row], strict=True))
        found = expectations(traced, values, ansatz.readout_wires)
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("ansatz", [qcnn(4), qcnn(4, block="paper"), qcnn(3, uploads=2), vqc(4)])
def test_traced_circuit_has_the_cnots_that_the_ansatz_counts(ansatz: Circuit) -> None:
    from qiskit import transpile

    cnots = transpile(to_qiskit(ansatz)[0], basis_gates=["rz", "sx", "x", "cx"])
    assert cnots.count_ops()["cx"] <= ansatz.two_qubit_gates


@pytest.fixture(scope="module")
def manila() -> Any:
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    return FakeManilaV2()


@pytest.mark.parametrize(
    "ansatz", [qcnn(4, 3), qcnn(2, uploads=2), vqc(3)], ids=lambda a: a.describe()
)
def test_transpiled_circuit_is_the_exact_engines(
    ansatz: Circuit, manila: Any, tmp_path: Path
) -> None:
    made = compile_circuit(ansatz, manila, 3, 2, 0, tmp_path)
    angles, features, exact = points(ansatz)
    qubits = used_qubits(made.circuit, made.facts.readouts)
    small = compact(made.circuit, qubits)
    measured = tuple(qubits.index(q) for q in made.facts.readouts)
    for row, wanted in zip(features, exact, strict=True):
        values = dict(zip(made.names, [*angles, *row], strict=True))
        np.testing.assert_allclose(expectations(small, values, measured), wanted, atol=1e-9)


def facts_of(made: Compiled) -> tuple[Any, ...]:
    return made.facts, made.names, made.key, made.circuit


def test_transpiled_once_and_kept(manila: Any, tmp_path: Path, monkeypatch: Any) -> None:
    first = compile_circuit(qcnn(3), manila, 3, 2, 0, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".qpy", ".json"}
    monkeypatch.setattr(
        "quantum.engines.devices.circuits.to_qiskit", None
    )  # a second tracing would fail
    assert facts_of(compile_circuit(qcnn(3), manila, 3, 2, 0, tmp_path)) == facts_of(first)
    with pytest.raises(TypeError):
        compile_circuit(qcnn(3), manila, 3, 2, 1, tmp_path)  # another seed: another circuit


def test_a_damaged_file_is_made_again(manila: Any, tmp_path: Path) -> None:
    first = compile_circuit(qcnn(2), manila, 1, 1, 0, tmp_path)
    for kind, keep in (("qpy", 0), ("json", 0), ("qpy", 100)):
        (file,) = tmp_path.glob(f"*.{kind}")
        file.write_bytes(file.read_bytes()[:keep] + b"damaged" * (not keep))
        again = compile_circuit(qcnn(2), manila, 1, 1, 0, tmp_path)
        assert facts_of(again)[:3] == facts_of(first)[:3]
        assert again.circuit.count_ops() == first.circuit.count_ops()


def test_estimated_error_and_duration_closed_form(manila: Any, tmp_path: Path) -> None:
    """One CNOT block: the product of fidelities, the longest path of durations."""
    made = compile_circuit(qcnn(2, block="paper"), manila, 1, 1, 0, tmp_path)
    fidelity, ready = 1.0, dict.fromkeys(range(5), 0.0)
    for step in made.circuit.data:
        qubits = tuple(made.circuit.find_bit(bit).index for bit in step.qubits)
        known = manila.target[step.operation.name][qubits]
        fidelity *= 1 - known.error
        end = max(ready[q] for q in qubits) + known.duration
        ready.update(dict.fromkeys(qubits, end))
    (readout,) = made.facts.readouts
    fidelity *= 1 - manila.target["measure"][(readout,)].error
    assert made.facts.error == pytest.approx(1 - fidelity)
    assert made.facts.seconds == pytest.approx(max(ready.values()))


def test_noise_of_a_part_is_that_of_the_whole_device(manila: Any) -> None:
    """The slow twin: Aer's own noise model of all qubits, on the same physical qubits."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

    circuit = QuantumCircuit(5, 2)
    circuit.x(3)  # outcomes far from even, so that read-out errors show
    circuit.cx(3, 2)
    circuit.sx(2)
    circuit.sx(2)
    circuit.cx(3, 2)
    qubits = [2, 3]
    small = compact(circuit, qubits)
    small.add_register(*circuit.cregs)
    shots = 100_000
    found = []
    for each, noise, where in (
        (circuit, NoiseModel.from_backend(manila), qubits),
        (small, noise_of(manila, qubits), [0, 1]),
    ):
        measured = each.copy()
        measured.measure(where, [0, 1])
        simulator = AerSimulator(noise_model=noise, method="density_matrix", seed_simulator=1)
        counts = simulator.run(measured, shots=shots).result().get_counts()
        found.append([counts.get(f"{i:02b}", 0) / shots for i in range(4)])
    np.testing.assert_allclose(found[0], found[1], atol=5 * (0.5 / shots) ** 0.5)
    assert part_of(manila.target, qubits).num_qubits == 2
