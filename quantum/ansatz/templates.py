"""The ansaetze as PennyLane templates, decomposed from the ansatz's own gate list, and drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.operation import Operation, Operator
from pennylane.wires import Wires, WiresLike

from quantum.ansatz.circuits import QCNN, VQC, Ansatz, BlockKind, convolution_ring
from quantum.ansatz.gates import Block, Gate, Trainable, block_of, count_angles, gates_of

GATE_LIMIT = 6  # up to so many qubits the VQC is drawn gate by gate, beyond it block by block
SVG_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font size
    "svg.hashsalt": "llm-qfl",  # same circuit, same file
    "font.family": "sans-serif",
}


class _Template(Operation):  # type: ignore[misc]
    """Base of the templates: one array of parameters, options by keyword.

    Parameters
    ----------
    parameters : tensor
        Angles or features.
    wires : wires, n of them
        Qubits.
    options : Any
        What `shape` and `compute_decomposition` need besides.

    Raises
    ------
    ValueError
        If the parameters are not of the template's shape.
    """

    grad_method = None
    num_params = 1
    ndim_params = (1,)

    def __init__(
        self, parameters: Any, wires: WiresLike, id: str | None = None, **options: Any
    ) -> None:
        check_shape(parameters, self.shape(len(Wires(wires)), **options))
        self._hyperparameters = options
        super().__init__(parameters, wires=wires, id=id)

    @staticmethod
    def shape(n_qubits: int, *args: Any, **kwargs: Any) -> tuple[int] | None:
        """Shape of the parameters; None: any."""
        return None


class ConvolutionTemplate(_Template):
    """Ring of convolution blocks, as it stands between two uploads of the features.

    Parameters
    ----------
    angles : tensor, shape (P,)
        Trainable angles, P from `shape`.
    wires : wires, n of them
        Qubits.
    block : {"su4", "paper"}
        Convolution block.
    """

    @staticmethod
    def shape(n_qubits: int, block: BlockKind = "su4") -> tuple[int]:
        """Shape of the angles."""
        return (count_angles(convolution_ring(range(n_qubits), block, 0)),)

    @staticmethod
    def compute_decomposition(
        angles: Any, wires: WiresLike, block: BlockKind = "su4"
    ) -> list[Operator]:
        """Gates in order of time."""
        labels = Wires(wires)
        return operations(convolution_ring(range(len(labels)), block, 0), labels, angles=angles)


class QCNNTemplate(_Template):
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
    """

    @staticmethod
    def shape(n_qubits: int, readouts: int = 1, block: BlockKind = "su4") -> tuple[int]:
        """Shape of the angles."""
        return (QCNN(n_qubits, readouts, block).angles,)

    @staticmethod
    def compute_decomposition(
        angles: Any, wires: WiresLike, readouts: int = 1, block: BlockKind = "su4"
    ) -> list[Operator]:
        """Gates in order of time."""
        labels = Wires(wires)
        return operations(QCNN(len(labels), readouts, block).layers, labels, angles=angles)


class VQCTemplate(_Template):
    """Trainable part of the variational classifier (real amplitudes).

    Parameters
    ----------
    angles : tensor, shape (n (reps + 1),)
        Trainable angles.
    wires : wires, n of them
        Qubits.
    reps : int
        Repetitions.
    """

    @staticmethod
    def shape(n_qubits: int, reps: int = 3) -> tuple[int]:
        """Shape of the angles."""
        return (VQC(n_qubits, reps=reps).angles,)

    @staticmethod
    def compute_decomposition(angles: Any, wires: WiresLike, reps: int = 3) -> list[Operator]:
        """Gates in order of time."""
        labels = Wires(wires)
        return operations(VQC(len(labels), reps=reps).layers, labels, angles=angles)


class FeatureEncoding(_Template):
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

    @staticmethod
    def compute_decomposition(features: Any, wires: WiresLike, ansatz: Ansatz) -> list[Operator]:
        """Gates in order of time."""
        return operations(ansatz.encoding, Wires(wires), features=features)


class BlockTemplate(_Template):
    """One named block, drawn as one box; for drawings only, it has no decomposition."""

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
    templates: list[Operation] = [FeatureEncoding(features, wires, ansatz=ansatz)]
    if isinstance(ansatz, VQC):
        return [*templates, VQCTemplate(angles, wires, reps=ansatz.reps)]
    (size,) = ConvolutionTemplate.shape(ansatz.n_qubits, ansatz.block)
    for _ in range(1, ansatz.uploads):
        templates.append(ConvolutionTemplate(angles[:size], wires, block=ansatz.block))
        templates.append(FeatureEncoding(features, wires, ansatz=ansatz))
        angles = angles[size:]
    return [*templates, QCNNTemplate(angles, wires, readouts=ansatz.readouts, block=ansatz.block)]


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


def check_shape(angles: Any, expected: tuple[int] | None) -> None:
    """Refuse angles of another shape than the ansatz's own; None: any is right."""
    given = tuple(qml.math.shape(angles))
    if expected is not None and given != expected:
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


def draw_svg(ansatz: QCNN | VQC) -> str:
    """Draw a circuit.

    Convolution and pooling blocks are boxes with their name (15 gates each would be
    unreadable), all else is drawn gate by gate; a VQC of more than 6 qubits as boxes too.
    Below a name stand the places of its trainable angles in the vector of all angles.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.

    Returns
    -------
    str
        An ``<svg>`` element, without XML prologue, that scales to its container's width.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    boxed = isinstance(ansatz, QCNN) or ansatz.n_qubits > GATE_LIMIT

    def circuit() -> list[Any]:
        _queue(ansatz, ansatz.encoding, boxed)
        _queue(ansatz, ansatz.layers, boxed)
        return [qml.expval(qml.Z(wire)) for wire in ansatz.readout_wires]

    with mpl.rc_context(SVG_SETTINGS):
        canvas = FigureCanvasAgg(Figure())  # no pyplot figure: nothing global is left behind
        wires = list(range(ansatz.n_qubits))
        figure, _ = qml.draw_mpl(circuit, wire_order=wires, style=None, fig=canvas.figure)()
        target = io.BytesIO()
        # PennyLane leaves half an inch, a wire's distance, blank on every side.
        inner = Bbox.from_extents(0.3, 0.45, *(figure.get_size_inches() - (0.4, 0.45)))
        figure.savefig(target, format="svg", metadata={"Date": None}, bbox_inches=inner)
    text = target.getvalue().decode()
    return text[text.index("<svg") :]


def _queue(ansatz: QCNN | VQC, blocks: Sequence[Block], boxed: bool) -> None:
    """Queue the blocks' operations: a box each, or their gates."""
    angles, features = np.zeros(ansatz.angles), np.zeros(ansatz.n_qubits)
    for block in blocks:
        parts = (block,) if boxed else [block_of(g.name, g.wires, [g]) for g in block.gates]
        for part in parts:
            if boxed or isinstance(part.gates[0].angle, Trainable):
                BlockTemplate(angles, part.wires, block=part)
            else:
                operations((part,), qml.wires.Wires(range(ansatz.n_qubits)), angles, features)
