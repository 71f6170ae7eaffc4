"""The PennyLane templates: shapes, decompositions, unitaries worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pennylane as qml
import pytest
from scipy.linalg import expm

from quantum.ansatz.circuits import QCNN, VQC, paper_block, pooling_block, su4_block
from quantum.ansatz.templates import (
    ConvolutionTemplate,
    FeatureEncoding,
    QCNNTemplate,
    VQCTemplate,
    circuit_templates,
    draw_svg,
    operations,
)

X, Y, Z, ONE = (qml.matrix(op(0)) for op in (qml.X, qml.Y, qml.Z, qml.I))


def turn(pauli: np.ndarray, angle: float) -> np.ndarray:
    return np.asarray(expm(-0.5j * angle * pauli))


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
    gates = operations((su4_block(0, 1, 0),), qml.wires.Wires([0, 1]), angles=t)
    np.testing.assert_allclose(qml.matrix(qml.prod(*gates[::-1]), [0, 1]), expected, atol=1e-12)


def test_pooling_at_zero_moves_the_source_onto_the_kept_qubit() -> None:
    """At zero angles Z of the kept qubit, pulled back through the pooling, is the source's Z."""
    gates = operations((pooling_block(0, 1, 0),), qml.wires.Wires([0, 1]), angles=np.zeros(3))
    unitary = qml.matrix(qml.prod(*gates[::-1]), [0, 1])
    pulled = unitary.conj().T @ np.kron(ONE, Z) @ unitary
    np.testing.assert_allclose(pulled, np.kron(Z, ONE), atol=1e-12)


def test_paper_blocks_by_hand() -> None:
    """Convolution: RZ(-pi/2), CX, RZ and RY, CX, RY, CX, RZ(pi/2); pooling ends before the last."""
    t = [0.3, -0.8, 1.9]
    forth = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    back = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])
    pooling = (
        np.kron(ONE, turn(Y, t[2]))
        @ forth
        @ np.kron(turn(Z, t[0]), turn(Y, t[1]))
        @ back
        @ np.kron(ONE, turn(Z, -np.pi / 2))
    )
    convolution = np.kron(turn(Z, np.pi / 2), ONE) @ back @ pooling
    for block, expected in ((pooling_block, pooling), (paper_block, convolution)):
        gates = operations((block(0, 1, 0),), qml.wires.Wires([0, 1]), angles=np.array(t))
        np.testing.assert_allclose(qml.matrix(qml.prod(*gates[::-1]), [0, 1]), expected, atol=1e-12)


def test_zz_feature_map_equals_its_phase_gates() -> None:
    """H, P(2 x_i), CNOT P(2 (pi - x_i)(pi - x_j)) CNOT, up to a global phase."""
    x = np.array([0.3, -1.1])
    h = (X + Z) / np.sqrt(2)
    cnot = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    phase = [np.diag([1, np.exp(2j * v)]) for v in x]
    joint = np.diag([1, np.exp(2j * (np.pi - x[0]) * (np.pi - x[1]))])
    expected = cnot @ np.kron(ONE, joint) @ cnot @ np.kron(*phase) @ np.kron(h, h)
    ours = qml.matrix(FeatureEncoding(x, [0, 1], ansatz=VQC(2)))
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
    np.testing.assert_allclose(
        qml.matrix(VQCTemplate(angles, range(n), reps=reps)), expected, atol=1e-12
    )


def test_templates_are_valid_pennylane_operations() -> None:
    rng = np.random.default_rng(0)
    for template in (
        QCNNTemplate(rng.normal(size=QCNNTemplate.shape(3)), range(3)),
        QCNNTemplate(
            rng.normal(size=QCNNTemplate.shape(4, 3, "paper")), range(4), readouts=3, block="paper"
        ),
        ConvolutionTemplate(rng.normal(size=ConvolutionTemplate.shape(3)), range(3)),
        VQCTemplate(rng.normal(size=VQCTemplate.shape(3, 2)), range(3), reps=2),
        FeatureEncoding(rng.normal(size=3), range(3), ansatz=QCNN(3)),
    ):
        qml.ops.functions.assert_valid(template, skip_differentiation=True, skip_pickle=True)


def test_shape_has_one_source() -> None:
    assert QCNNTemplate.shape(6, 2, "paper") == (QCNN(6, 2, "paper").angles,)
    assert VQCTemplate.shape(5, 2) == (VQC(5, reps=2).angles,)
    assert ConvolutionTemplate.shape(3, "paper") == (3 * 3,)
    with pytest.raises(
        ValueError, match=r"angles have shape \(3,\); the ansatz's shape is \(84,\)"
    ):
        QCNNTemplate(np.zeros(3), range(4))


@pytest.mark.parametrize("ansatz", [QCNN(3, 3, "paper", 3), QCNN(2), VQC(3)], ids=str)
def test_a_circuit_is_its_templates(ansatz: QCNN | VQC) -> None:
    rng, wires = np.random.default_rng(0), ["a", "b", "c"][: ansatz.n_qubits]
    angles, x = rng.normal(size=ansatz.angles), rng.normal(size=ansatz.n_qubits)
    templates = circuit_templates(ansatz, angles, x, wires)
    found = [gate for template in templates for gate in template.decomposition()]
    blocks = ansatz.encoding + ansatz.layers
    wanted = operations(blocks, qml.wires.Wires(wires), angles, x)
    assert len(found) == len(wanted)
    assert all(qml.equal(a, b) for a, b in zip(found, wanted, strict=True))
    with pytest.raises(ValueError, match=rf"shape \(1,\); .* shape is \({ansatz.angles},\)"):
        circuit_templates(ansatz, np.zeros(1), x, wires)


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


@pytest.mark.parametrize("ansatz", [QCNN(4), QCNN(5, 3, "paper"), VQC(4), VQC(9)])
def test_drawing_is_svg_with_readable_labels(ansatz: QCNN | VQC) -> None:
    svg = draw_svg(ansatz)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    expected = {"su4": "SU(4)", "paper": "conv"}[ansatz.block] if isinstance(ansatz, QCNN) else "RY"
    assert f">{expected}</text>" in svg
    named = re.findall(r">θ([\d-]+)</text>", svg)
    places = {k for part in named for k in range(*_ends(part))}
    assert places == set(range(ansatz.angles))
    left, top, right, bottom = drawn_box(svg)
    assert max(left, top, right, bottom) < 20  # points: no blank margin
    assert len(svg) < 200_000
    assert svg == draw_svg(ansatz)
