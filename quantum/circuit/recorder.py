"""Gates that write themselves down while a circuit is traced, and are PennyLane's otherwise.

Circuits that are written with these are PennyLane quantum functions, and are traced without
PennyLane, which takes seconds to import. A circuit may as well use PennyLane's own operations,
or both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from quantum.circuit.gates import Block, Gate, one_angle, wire_tuple

_active: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


class Recorder:
    """Writes down what a circuit does.

    Attributes
    ----------
    blocks : list of Block
        So far, in order of time; a gate outside of every block is one of its own.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._open: list[Gate] | None = None
        self._queue: Any = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write down the gates of this context; PennyLane's own only if it is imported."""
        token = _active.set(self)
        try:
            with self._pennylane():
                yield
            self.flush()
        finally:
            _active.reset(token)

    def add(self, gate: Gate) -> None:
        """Write down a gate."""
        if self._open is not None:
            self._open.append(gate)
        else:
            self.blocks.append(Block(gate.name, gate.wires, (gate,)))

    def flush(self) -> None:
        """Write down what PennyLane has queued so far."""
        if self._queue is None or not len(self._queue):
            return
        from quantum.circuit.from_pennylane import gates_from

        operations = list(self._queue.queue)
        self._queue.clear()
        for gate in gates_from(operations):
            self.add(gate)

    @property
    def nested(self) -> bool:
        """Whether PennyLane collects operations for a purpose of its own (``qml.adjoint``)."""
        if self._queue is None:
            return False
        from pennylane import QueuingManager

        return QueuingManager.active_context() is not self._queue

    @contextmanager
    def block(self, label: str, wires: Sequence[int] | None) -> Iterator[None]:
        """Write the gates of this context down as one block; a block inside it is part of it."""
        self.flush()
        if self._open is not None:
            yield
            return
        gates: list[Gate] = []
        self._open = gates
        try:
            yield
            self.flush()
        finally:
            self._open = None
        if not gates:
            return
        used = dict.fromkeys(wire for gate in gates for wire in gate.wires)
        self.blocks.append(Block(label, tuple(used if wires is None else wires), tuple(gates)))

    def _pennylane(self) -> AbstractContextManager[Any]:
        if "pennylane" not in sys.modules:
            return nullcontext()
        from pennylane.queuing import AnnotatedQueue

        self._queue = AnnotatedQueue()
        return self._queue  # type: ignore[no-any-return]


def block(label: str, wires: Sequence[int] | None = None) -> AbstractContextManager[None]:
    """Gates of this context belong together: one box in drawings.

    Parameters
    ----------
    label : str
        What the box says.
    wires : sequence of int, optional
        Its qubits; None: those of its gates, in order of use.
    """
    recorder = _active.get()
    return nullcontext() if recorder is None else recorder.block(label, wires)


def _write(name: str, wires: Any, *angles: Any) -> Any:
    recorder = _active.get()
    if recorder is None or recorder.nested:
        import pennylane as qml

        return getattr(qml, name)(*angles, wires=wires)
    recorder.flush()
    angle = one_angle(angles[0]) if angles else None
    recorder.add(Gate(name, wire_tuple(wires), angle))
    return None


def _rotation(name: str) -> Callable[[Any, Any], Any]:
    def gate(angle: Any, wires: Any) -> Any:
        return _write(name, wires, angle)

    gate.__name__ = gate.__qualname__ = name
    gate.__doc__ = f"Rotate by an angle in radians, exp(-i angle P / 2): ``qml.{name}``."
    return gate


def _fixed(name: str) -> Callable[[Any], Any]:
    def gate(wires: Any) -> Any:
        return _write(name, wires)

    gate.__name__ = gate.__qualname__ = name
    gate.__doc__ = f"Apply ``qml.{name}``."
    return gate


RX, RY, RZ = (_rotation(name) for name in ("RX", "RY", "RZ"))
IsingXX, IsingYY, IsingZZ = (_rotation(name) for name in ("IsingXX", "IsingYY", "IsingZZ"))
Hadamard, S, T, PauliX, PauliY, PauliZ, CNOT, CZ, SWAP = (
    _fixed(n) for n in ("Hadamard", "S", "T", "PauliX", "PauliY", "PauliZ", "CNOT", "CZ", "SWAP")
)
