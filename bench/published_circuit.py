"""The published code's objective and gradient, as its libraries compute them, beside ours.

``python -m bench.published_circuit [--rows 267] [--gradient-rows 32]`` measures in one run: a
4-qubit QCNN of `paper` blocks behind Qiskit's ZFeatureMap, one read-out, squared error. Theirs:
qiskit-machine-learning's EstimatorQNN with its own defaults, an estimator of exact state vectors
and the parameter-shift gradient, one circuit a row and shift. Ours: the exact engine on the very
same circuit, the largest deviation of values and gradients printed beside the times.

qiskit-machine-learning is no dependency of ours; without it only our own times are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bench.engine import milliseconds
from quantum.ansatz.qcnn import QCNN
from quantum.circuit import Block, Circuit, Gate, Trainable, gates_of, trace_ansatz
from quantum.circuit.expression import symbols
from quantum.engines.exact.engine import ExactEngine

QUBITS = 4


def z_feature_qcnn(qubits: int) -> Circuit:
    """Return the published circuit: ZFeatureMap (H, P(2 x), twice), then a QCNN of `paper` blocks.

    P is RZ up to a phase.
    """
    x = symbols("feature", qubits)
    gates = [Gate("Hadamard", (i,)) for i in range(qubits)]
    gates += [Gate("RZ", (i,), 2.0 * x[i]) for i in range(qubits)]
    encoding = (Block("Z feature map", tuple(range(qubits)), tuple(gates)),) * 2
    return replace(trace_ansatz(QCNN("paper"), qubits), encoding=encoding)


def ours(
    ansatz: Circuit, x: np.ndarray, y: np.ndarray, angles: np.ndarray
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Return functions that compute <Z> of each row, and the gradient of the squared error."""
    engine = ExactEngine(ansatz)
    prepared, target = engine.prepare(x), torch.as_tensor(y, dtype=engine.dtype)
    theta = torch.tensor(angles, dtype=engine.dtype, requires_grad=True)

    def values() -> np.ndarray:
        with torch.no_grad():
            return engine.expectations(theta, prepared)[:, 0].numpy()

    def gradient() -> np.ndarray:
        error = engine.expectations(theta, prepared)[:, 0] - target
        return torch.autograd.grad(error.square().mean(), theta)[0].numpy()

    return values, gradient


def theirs(
    ansatz: Circuit, x: np.ndarray, y: np.ndarray, angles: np.ndarray
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Return the same as `ours`, through an EstimatorQNN with its defaults."""
    from qiskit.circuit.library import z_feature_map
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    features = z_feature_map(ansatz.n_qubits, reps=2)
    circuit, weights = trainable_part(ansatz)
    observable = SparsePauliOp.from_sparse_list(
        [("Z", [ansatz.readout_wires[0]], 1.0)], ansatz.n_qubits
    )
    network = EstimatorQNN(
        circuit=features.compose(circuit),
        observables=observable,
        input_params=list(features.parameters),
        weight_params=weights,
    )

    def values() -> np.ndarray:
        return np.asarray(network.forward(x, angles))[:, 0]

    def gradient() -> np.ndarray:
        jacobian = np.asarray(network.backward(x, angles)[1])[:, 0]
        return np.asarray(2 * (values() - y) @ jacobian / len(y))

    return values, gradient


def trainable_part(ansatz: Circuit) -> tuple[Any, list[Any]]:
    """Return the trainable part as a Qiskit circuit, and its parameters in our order."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    weights = ParameterVector("w", ansatz.angles)
    circuit = QuantumCircuit(ansatz.n_qubits)
    for gate in gates_of(ansatz.layers):
        if gate.name == "CNOT":
            circuit.cx(*gate.wires)
            continue
        angle = weights[gate.angle.index] if isinstance(gate.angle, Trainable) else gate.angle
        {"RY": circuit.ry, "RZ": circuit.rz}[gate.name](angle, *gate.wires)
    return circuit, list(weights)


def timed(action: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the result of one call and its milliseconds."""
    began = time.perf_counter()
    result = action()
    return result, 1000 * (time.perf_counter() - began)


def compare(what: str, rows: int, our: Any, their: Any) -> str:
    """Return a Markdown row: ours, theirs, their ratio and how far the results lie apart."""
    found, mine = our(), milliseconds(our, 1.0)
    if their is None:
        return f"| {what} | {rows} | {mine:.2f} | not installed | | |"
    expected, took = timed(their)
    apart = np.abs(found - expected).max()
    return f"| {what} | {rows} | {mine:.2f} | {took:.0f} | {took / mine:.0f}x | {apart:.1e} |"


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.published_circuit", description=__doc__)
    parser.add_argument("--rows", type=int, default=267)
    parser.add_argument("--gradient-rows", type=int, default=32)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ansatz = z_feature_qcnn(QUBITS)
    print("| what | rows | ours, ms | EstimatorQNN, ms | ratio | largest deviation |")
    print("|---|---|---|---|---|---|")
    for what, rows in (("objective", given.rows), ("gradient", given.gradient_rows)):
        rng = np.random.default_rng(0)
        x, y = rng.uniform(0, 1, (rows, QUBITS)), rng.choice([-1.0, 1.0], rows)
        angles = rng.uniform(-np.pi, np.pi, ansatz.angles)
        index = 0 if what == "objective" else 1
        try:
            their = theirs(ansatz, x, y, angles)[index]
        except ImportError:
            their = None
        print(compare(what, rows, ours(ansatz, x, y, angles)[index], their), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
