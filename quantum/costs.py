"""What training costs in circuits: counted in advance, or metered while an instruction runs.

Circuits are counted as a quantum computer would need them, whatever engine computed them: a
forward pass of B rows is B circuits, since the commuting read-outs share one circuit. With B the
rows of a step and S the gates whose angles are trained, a step costs

* Adam, by autograd or by parameter shift: ``B (1 + 2 S)``, the loss itself and two shifts for each
  such gate (the head's parameters cost none);
* SPSA: ``2 B``, whatever the number of angles;
* COBYLA: ``B`` an evaluation, and the start is evaluated too, which is no step.

Each of these is one job. Warm rounds on the exact simulator cost nothing. This module loads no
heavy library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from core import SettingsError, TrainSettings, local_optimizer
from quantum.engines.base import Labelled, Usage, is_device

if TYPE_CHECKING:
    from quantum.circuit import Circuit
    from quantum.classifier import Classifier


def step_rows(train: TrainSettings, rows: int) -> int:
    """Rows B of a step: ``train.batch_rows``, or all."""
    return min(train.batch_rows, rows) if train.batch_rows else rows


def circuits_per_step(train: TrainSettings, rows: int, shifts: int, backend: str = "exact") -> int:
    """Circuits of one optimiser step.

    Parameters
    ----------
    train : TrainSettings
        Optimiser and batch.
    rows : int
        The client's training rows.
    shifts : int
        S, the circuit's gates whose angles are trained.
    backend : str
        What the client runs on, which decides what ``train.optimizer = auto`` is.

    Returns
    -------
    int
        B (1 + 2 S) for Adam, 2 B for SPSA, B for COBYLA.
    """
    points = {"cobyla": 1, "spsa": 2}.get(local_optimizer(train.optimizer, backend), 1 + 2 * shifts)
    return points * step_rows(train, rows)


def check_shifts(circuit: Circuit) -> None:
    """Refuse a circuit whose gradient shifts of its gates do not give.

    Raises
    ------
    SettingsError
        If an angle depends on features and weights at once: a shift would be another for each row.
    """
    if circuit.mixed:
        raise SettingsError(
            f"train.optimizer = 'parameter-shift' with {circuit.describe()}, where an angle "
            "depends on features and weights at once",
            "adam (exact and PennyLane), spsa, cobyla",
            "change train.optimizer",
        )


def circuits_before_steps(train: TrainSettings, rows: int) -> int:
    """Circuits of a round before its first optimiser step.

    Parameters
    ----------
    train : TrainSettings
        The optimiser.
    rows : int
        The client's training rows.

    Returns
    -------
    int
        B for COBYLA, which evaluates its start first; else 0.
    """
    return step_rows(train, rows) if train.optimizer == "cobyla" else 0


class CircuitCost(TypedDict):
    """The quantum part of a report."""

    jobs: int
    circuits: int
    shots: int
    two_qubit_gates: int
    qpu_seconds: float
    queue_seconds: float


def _cost(used: Usage, gates_per_circuit: int) -> CircuitCost:
    return CircuitCost(
        jobs=used.jobs,
        circuits=used.circuits,
        shots=used.shots,
        two_qubit_gates=used.circuits * gates_per_circuit,
        qpu_seconds=used.qpu_seconds,
        queue_seconds=used.queue_seconds,
    )


NO_COST = _cost(Usage(), 0)


@dataclass
class Meter:
    """Measures what a classifier's engine has spent since an instruction began."""

    classifier: Classifier
    free: bool
    before: Usage

    def reserve(self, *circuits: int, overdraw: bool = False) -> None:
        """Reserve budget for later jobs; with ``overdraw`` the next may exceed the QPU seconds."""
        engine = self.classifier.engine
        if is_device(engine):
            engine.reserve(*circuits, overdraw=overdraw)

    def cost(self, circuits: int) -> CircuitCost:
        """Return the cost of the instruction so far.

        Parameters
        ----------
        circuits : int
            As counted in advance; a device's own count, failed jobs included, is used instead.
        """
        if self.free:
            return NO_COST
        engine = self.classifier.engine
        if is_device(engine):
            used = engine.usage - self.before
            engine.reported = engine.usage
        else:
            used = Usage(circuits=circuits, shots=circuits * int(getattr(engine, "shots", 0)))
        return _cost(used, self.classifier.two_qubit_gates)


@contextmanager
def metered(classifier: Classifier, label: str, *, free: bool = False) -> Iterator[Meter]:
    """Meter an instruction on a classifier's engine, and end its session or batch afterwards.

    Parameters
    ----------
    classifier : Classifier
        What the instruction runs on.
    label : str
        What its jobs are for. A repeated instruction has the same label, so its jobs are
        collected and not paid again.
    free : bool
        Whether its circuits stand for no device: a warm round.
    """
    engine = classifier.engine
    if isinstance(engine, Labelled):
        engine.begin(label)
    if not is_device(engine):
        yield Meter(classifier, free, Usage())
        return
    try:
        # The cost of an instruction that failed is reported with the next one.
        yield Meter(classifier, free, engine.reported)
    finally:
        engine.reserve()
        engine.close()
