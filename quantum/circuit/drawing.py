"""Drawings of circuits: SVG by PennyLane and matplotlib."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.operation import Operation

from quantum.circuit.circuit import Circuit
from quantum.circuit.gates import Block
from quantum.circuit.to_pennylane import operations

GATE_LIMIT = 6  # up to so many qubits wide blocks are drawn gate by gate, beyond it as boxes
SVG_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font size
    "svg.hashsalt": "llm-qfl",  # same circuit, same file
    "font.family": "sans-serif",
}


class _Box(Operation):  # type: ignore[misc]
    """One box with a text; for drawings only, it has no decomposition."""

    num_params = 0

    def __init__(self, text: str, wires: Any) -> None:
        self._hyperparameters = {"text": text}
        super().__init__(wires=wires)

    def label(
        self,
        decimals: int | None = None,
        base_label: str | None = None,
        cache: dict[str, Any] | None = None,
    ) -> str:
        """Text on the box."""
        return str(self.hyperparameters["text"])


def draw_svg(circuit: Circuit) -> str:
    """Draw a circuit.

    Blocks of one or two qubits are boxes with their name (15 gates each would be unreadable), all
    else is drawn gate by gate; wider blocks are boxes in circuits of more than 6 qubits. Below a
    name stand the places of its weights in the vector of all weights.

    Parameters
    ----------
    circuit : Circuit
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

    features = np.zeros(circuit.n_qubits)
    wires = list(range(circuit.n_qubits))

    def drawn() -> list[Any]:
        for block in circuit.blocks:
            _queue(circuit, block, features)
        return [qml.expval(qml.Z(wire)) for wire in circuit.readout_wires]

    with mpl.rc_context(SVG_SETTINGS):
        canvas = FigureCanvasAgg(Figure())  # no pyplot figure: nothing global is left behind
        figure, _ = qml.draw_mpl(drawn, wire_order=wires, style=None, fig=canvas.figure)()
        target = io.BytesIO()
        # PennyLane leaves half an inch, a wire's distance, blank on every side.
        inner = Bbox.from_extents(0.3, 0.45, *(figure.get_size_inches() - (0.4, 0.45)))
        figure.savefig(target, format="svg", metadata={"Date": None}, bbox_inches=inner)
    text = target.getvalue().decode()
    return text[text.index("<svg") :]


def _queue(circuit: Circuit, block: Block, features: np.ndarray) -> None:
    """Queue a block's operations: a box, or its gates; a trained gate is a box of its own."""
    single = len(block.gates) == 1 and block.label == block.gates[0].name
    if not single and (len(block.wires) < 3 or circuit.n_qubits > GATE_LIMIT):
        _Box(_text(circuit, block), block.wires)
        return
    for gate in block.gates:
        part = Block(gate.name, gate.wires, (gate,))
        if gate.is_trainable:
            _Box(_text(circuit, part), part.wires)
        else:
            operations((part,), qml.wires.Wires(range(circuit.n_qubits)), None, features)


def _text(circuit: Circuit, block: Block) -> str:
    """Return a block's name and the weights that it trains."""
    used = circuit.weights_of(block)
    if not used:
        return block.label
    first, last = used[0], used[-1]
    return f"{block.label}\nθ{first}" + (f"-{last}" if last > first else "")
