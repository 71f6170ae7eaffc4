"""Blocks and circuits as PennyLane operations: unitaries worked out by hand, and drawings."""

from __future__ import annotations

import re

import numpy as np
import pennylane as qml
import pytest
from scipy.linalg import expm

from quantum.circuit import Circuit
from quantum.circuit.drawing import draw_svg
from quantum.circuit.gates import Block
from quantum.circuit.parts import convolution, pooling
from quantum.circuit.recorder import Recorder
from quantum.circuit.to_pennylane import operations
from tests.quantum.conftest import qcnn, vqc

X, Y, Z, ONE = (qml.matrix(op(0)) for op in (qml.X, qml.Y, qml.Z, qml.I))


def turn(pauli: np.ndarray, angle: float) -> np.ndarray:
    return np.asarray(expm(-0.5j * angle * pauli))


def written(t: np.ndarray, kind: str) -> np.ndarray:
    """Return the matrix of a block on qubits 0 and 1, recorded and as PennyLane's operations."""
    recorder, angles = Recorder(), iter(t)
    with recorder.recording():
        pooling(angles, 0, 1) if kind == "pool" else convolution(kind, angles, 0, 1)
    assert next(angles, None) is None
    gates = operations(recorder.blocks, qml.wires.Wires([0, 1]))
    return np.asarray(qml.matrix(qml.prod(*gates[::-1]), [0, 1]))


def matrix(blocks: tuple[Block, ...], n: int, **values: np.ndarray) -> np.ndarray:
    gates = operations(blocks, qml.wires.Wires(range(n)), **values)
    return np.asarray(qml.matrix(qml.prod(*gates[::-1]), range(n)))


def test_su4_block_is_the_product_of_exponentials() -> None:
    t = np.random.default_rng(0).uniform(-3, 3, 15)
    local = [turn(Z, t[i + 2]) @ turn(Y, t[i + 1]) @ turn(Z, t[i]) for i in (0, 3, 9, 12)]
    middle = [turn(np.kron(P, P), t[6 + i]) for i, P in enumerate((X, Y, Z))]
    expected = (
        np.kron(local[2], local[3])
        @ middle[2]
        @ middle[1]
        @ middle[0]
        @ np.kron(local[0], local[1])
    )
    np.testing.assert_allclose(written(t, "su4"), expected, atol=1e-12)


def test_pooling_at_zero_moves_the_source_onto_the_kept_qubit() -> None:
    """At zero angles Z of the kept qubit, pulled back through the pooling, is the source's Z."""
    unitary = written(np.zeros(3), "pool")
    pulled = unitary.conj().T @ np.kron(ONE, Z) @ unitary
    np.testing.assert_allclose(pulled, np.kron(Z, ONE), atol=1e-12)


def test_paper_blocks_by_hand() -> None:
    """Convolution: RZ(-pi/2), CX, RZ and RY, CX, RY, CX, RZ(pi/2); pooling ends before the last."""
    t = [0.3, -0.8, 1.9]
    forth = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    back = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])
    pooled = (
        np.kron(ONE, turn(Y, t[2]))
        @ forth
        @ np.kron(turn(Z, t[0]), turn(Y, t[1]))
        @ back
        @ np.kron(ONE, turn(Z, -np.pi / 2))
    )
    convolved = np.kron(turn(Z, np.pi / 2), ONE) @ back @ pooled
    for kind, expected in (("pool", pooled), ("paper", convolved)):
        np.testing.assert_allclose(written(np.array(t), kind), expected, atol=1e-12)


def test_zz_feature_map_equals_its_phase_gates() -> None:
    """H, P(2 x_i), CNOT P(2 (pi - x_i)(pi - x_j)) CNOT, up to a global phase."""
    x = np.array([0.3, -1.1])
    h = (X + Z) / np.sqrt(2)
    cnot = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    phase = [np.diag([1, np.exp(2j * v)]) for v in x]
    joint = np.diag([1, np.exp(2j * (np.pi - x[0]) * (np.pi - x[1]))])
    expected = cnot @ np.kron(ONE, joint) @ cnot @ np.kron(*phase) @ np.kron(h, h)
    ours = matrix(vqc(2).encoding, 2, features=x)
    overlap = np.trace(expected.conj().T @ ours) / 4
    assert abs(overlap) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("n", "reps"), [(2, 1), (3, 2)])
def test_real_amplitudes_equal_full_entanglement(n: int, reps: int) -> None:
    """The ladder (n-2, n-1) ... (0, 1) is the full set of CNOTs i -> j, i < j."""
    angles = np.random.default_rng(1).uniform(-3, 3, n * (reps + 1))

    def full() -> None:
        for rep in range(reps + 1):
            for i in range(n):
                qml.RY(angles[rep * n + i], i)
            if rep < reps:
                for i in range(n):
                    for j in range(i + 1, n):
                        qml.CNOT([i, j])

    expected = qml.matrix(full, wire_order=range(n))()
    ours = matrix(vqc(n, reps=reps).layers, n, slots=angles)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def drawn_box(svg: str) -> tuple[float, float, float, float]:
    """Return the blank points left, above, right and below of what is drawn."""
    _, drawn = svg.split('id="axes_1"')
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    points = np.array(
        re.findall(r"(?:[ML] |rotate\(-0 |translate\()(-?[\d.]+) (-?[\d.]+)", drawn), float
    )
    (x, y), (far_x, far_y) = points.min(axis=0), points.max(axis=0)
    return x, y, width - far_x, height - far_y


def _ends(part: str) -> tuple[int, int]:
    first, _, last = part.partition("-")
    return int(first), int(last or first) + 1


@pytest.mark.parametrize("ansatz", [qcnn(4), qcnn(5, 3, "paper"), vqc(4), vqc(9)])
def test_drawing_is_svg_with_readable_labels(ansatz: Circuit) -> None:
    svg = draw_svg(ansatz)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    label = ansatz.layers[0].label
    assert f">{label}</text>" in svg
    named = re.findall(r">θ([\d-]+)</text>", svg)
    places = {k for part in named for k in range(*_ends(part))}
    assert places == set(range(ansatz.angles))
    left, top, right, bottom = drawn_box(svg)
    assert max(left, top, right, bottom) < 20  # points: no blank margin
    assert len(svg) < 200_000
    assert svg == draw_svg(ansatz)
