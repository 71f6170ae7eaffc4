"""Drawing an ansatz as SVG text with PennyLane's matplotlib drawer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pennylane as qml

from quantum.ansatz.circuits import QCNN, VQC
from quantum.ansatz.gates import Block, Trainable, block_of
from quantum.ansatz.templates import BlockTemplate, operations

GATE_LIMIT = 6  # up to so many qubits the VQC is drawn gate by gate, beyond it block by block
SVG_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font size
    "svg.hashsalt": "llm-qfl",  # same circuit, same file
    "font.family": "sans-serif",
}


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
                BlockTemplate(angles, part.wires, part)
            else:
                operations((part,), qml.wires.Wires(range(ansatz.n_qubits)), angles, features)
