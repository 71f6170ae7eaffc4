"""The ansaetze as PennyLane templates, decomposed from the ansatz's own gate list."""

from __future__ import annotations

from typing import Any

import pennylane as qml
from pennylane.operation import Operation, Operator
from pennylane.wires import Wires, WiresLike

from quantum.ansatz.circuits import QCNN, VQC, Ansatz, BlockKind, convolution_ring
from quantum.ansatz.gates import Block, Gate, Trainable, count_angles, gates_of


class ConvolutionTemplate(Operation):  # type: ignore[misc]
    """Ring of convolution blocks, as it stands between two uploads of the features.

    Parameters
    ----------
    angles : tensor, shape (P,)
        Trainable angles, P from `shape`.
    wires : wires, n of them
        Qubits.
    block : {"su4", "paper"}
        Convolution block.

    Raises
    ------
    ValueError
        If ``angles`` is not of that shape.
    """

    grad_method = None
    num_params = 1
    ndim_params = (1,)

    def __init__(
        self, angles: Any, wires: WiresLike, block: BlockKind = "su4", id: str | None = None
    ) -> None:
        check_shape(angles, self.shape(len(Wires(wires)), block))
        self._hyperparameters = {"block": block}
        super().__init__(angles, wires=wires, id=id)

    @staticmethod
    def shape(n_qubits: int, block: BlockKind = "su4") -> tuple[int]:
        """Shape of the angles."""
        return (count_angles(convolution_ring(range(n_qubits), block, 0)),)

    @staticmethod
    def compute_decomposition(angles: Any, wires: WiresLike, block: BlockKind) -> list[Operator]:
        """Gates in order of time."""
        labels = Wires(wires)
        return operations(convolution_ring(range(len(labels)), block, 0), labels, angles=angles)


class QCNNTemplate(Operation):  # type: ignore[misc]
    """Quantum convolutional network behind the last upload of the features.

    Parameters
    ----------
    angles : tensor, shape (P,)
        Trainable angles, P from `shape`.
    wires : wires, n of them
        Qubits.
    readouts : int
        Qubits that the pooling retains.
    block : {"su4", "paper"}
        Convolution block.

    Raises
    ------
    ValueError
        If ``angles`` is not of that shape.
    """

    grad_method = None
    num_params = 1
    ndim_params = (1,)

    def __init__(
        self,
        angles: Any,
        wires: WiresLike,
        readouts: int = 1,
        block: BlockKind = "su4",
        id: str | None = None,
    ) -> None:
        check_shape(angles, self.shape(len(Wires(wires)), readouts, block))
        self._hyperparameters = {"readouts": readouts, "block": block}
        super().__init__(angles, wires=wires, id=id)

    @staticmethod
    def shape(n_qubits: int, readouts: int = 1, block: BlockKind = "su4") -> tuple[int]:
        """Shape of the angles."""
        return (QCNN(n_qubits, readouts, block).angles,)

    @staticmethod
    def compute_decomposition(
        angles: Any, wires: WiresLike, readouts: int, block: BlockKind
    ) -> list[Operator]:
        """Gates in order of time."""
        labels = Wires(wires)
        return operations(QCNN(len(labels), readouts, block).layers, labels, angles=angles)


class VQCTemplate(Operation):  # type: ignore[misc]
    """Trainable part of the variational classifier (real amplitudes).

    Parameters
    ----------
    angles : tensor, shape (n (reps + 1),)
        Trainable angles.
    wires : wires, n of them
        Qubits.
    reps : int
        Repetitions.

    Raises
    ------
    ValueError
        If ``angles`` is not of that shape.
    """

    grad_method = None
    num_params = 1
    ndim_params = (1,)

    def __init__(self, angles: Any, wires: WiresLike, reps: int = 3, id: str | None = None) -> None:
        check_shape(angles, self.shape(len(Wires(wires)), reps))
        self._hyperparameters = {"reps": reps}
        super().__init__(angles, wires=wires, id=id)

    @staticmethod
    def shape(n_qubits: int, reps: int = 3) -> tuple[int]:
        """Shape of the angles."""
        return (VQC(n_qubits, reps=reps).angles,)

    @staticmethod
    def compute_decomposition(angles: Any, wires: WiresLike, reps: int) -> list[Operator]:
        """Gates in order of time."""
        labels = Wires(wires)
        return operations(VQC(len(labels), reps=reps).layers, labels, angles=angles)


class FeatureEncoding(Operation):  # type: ignore[misc]
    """Writes features into the state, as the given ansatz does it.

    Parameters
    ----------
    features : tensor, shape (n,) or (rows, n)
        Features; a leading axis broadcasts.
    wires : wires, n of them
        Qubits.
    ansatz : Ansatz
        Whose encoding.
    """

    grad_method = None
    num_params = 1
    ndim_params = (1,)

    def __init__(
        self, features: Any, wires: WiresLike, ansatz: Ansatz, id: str | None = None
    ) -> None:
        self._hyperparameters = {"ansatz": ansatz}
        super().__init__(features, wires=wires, id=id)

    @staticmethod
    def compute_decomposition(features: Any, wires: WiresLike, ansatz: Ansatz) -> list[Operator]:
        """Gates in order of time."""
        return operations(ansatz.encoding, Wires(wires), features=features)


class BlockTemplate(Operation):  # type: ignore[misc]
    """One named block, drawn as one box; for drawings only, it has no decomposition."""

    num_params = 1
    ndim_params = (1,)

    def __init__(self, angles: Any, wires: WiresLike, block: Block, id: str | None = None) -> None:
        self._hyperparameters = {"block": block}
        super().__init__(angles, wires=wires, id=id)

    def label(
        self,
        decimals: int | None = None,
        base_label: str | None = None,
        cache: dict[str, Any] | None = None,
    ) -> str:
        """Text on the box: the block's name and the angles that it trains."""
        block = self.hyperparameters["block"]
        used = [g.angle.index for g in block.gates if isinstance(g.angle, Trainable)]
        if not used:
            return str(block.label)
        first, last = min(used), max(used)
        return f"{block.label}\nθ{first}" + (f"-{last}" if last > first else "")


def circuit_templates(
    ansatz: QCNN | VQC, angles: Any, features: Any, wires: WiresLike
) -> list[Operation]:
    """Build the templates of a whole circuit.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    angles : tensor, shape (P,)
        All trainable angles.
    features : tensor, shape (n,) or (rows, n)
        Features; a leading axis broadcasts.
    wires : wires, n of them
        Qubits.

    Returns
    -------
    list of Operation
        In order of time; a template for each upload of the features, and for what follows it.
    """
    check_shape(angles, (ansatz.angles,))
    templates: list[Operation] = [FeatureEncoding(features, wires, ansatz)]
    if isinstance(ansatz, VQC):
        return [*templates, VQCTemplate(angles, wires, ansatz.reps)]
    (size,) = ConvolutionTemplate.shape(ansatz.n_qubits, ansatz.block)
    for _ in range(1, ansatz.uploads):
        templates.append(ConvolutionTemplate(angles[:size], wires, ansatz.block))
        templates.append(FeatureEncoding(features, wires, ansatz))
        angles = angles[size:]
    return [*templates, QCNNTemplate(angles, wires, ansatz.readouts, ansatz.block)]


def operations(
    blocks: tuple[Block, ...], wires: Wires, angles: Any = None, features: Any = None
) -> list[Operator]:
    """Turn blocks into PennyLane operations.

    Parameters
    ----------
    blocks : tuple of Block
        The blocks.
    wires : Wires
        Labels of qubits 0 ... n-1.
    angles : tensor, shape (P,), optional
        Values of the trainable angles.
    features : tensor, shape (..., n), optional
        Values of the features.

    Returns
    -------
    list of Operator
        In order of time.
    """
    place = dict(enumerate(wires))
    return [_operation(gate, place, angles, features) for gate in gates_of(blocks)]


def check_shape(angles: Any, expected: tuple[int]) -> None:
    """Refuse angles of another shape than the ansatz's own."""
    given = tuple(qml.math.shape(angles))
    if given != expected:
        raise ValueError(f"angles have shape {given}; the ansatz's shape is {expected}.")


def _operation(gate: Gate, place: dict[int, Any], angles: Any, features: Any) -> Operator:
    kind = getattr(qml, gate.name)
    wires = [place[wire] for wire in gate.wires]
    if gate.angle is None:
        return kind(wires=wires)
    if isinstance(gate.angle, float):
        return kind(gate.angle, wires=wires)
    if isinstance(gate.angle, Trainable):
        return kind(angles[..., gate.angle.index], wires=wires)
    return kind(gate.angle.value(features), wires=wires)
