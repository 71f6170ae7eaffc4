"""What an order costs: counted by the device that ran its circuits, or as a device would count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from quantum.engines.base import DeviceEngine, Labelled

if TYPE_CHECKING:
    from quantum.classifier import Classifier
    from quantum.engines.base import Usage


class Spent(TypedDict):
    """The quantum part of a report."""

    jobs: int
    circuits: int
    shots: int
    two_qubit_gates: int
    qpu_seconds: float
    queue_seconds: float


FREE = Spent(jobs=0, circuits=0, shots=0, two_qubit_gates=0, qpu_seconds=0.0, queue_seconds=0.0)


@dataclass
class Meter:
    """Reads what a classifier's engine has spent since the order began."""

    classifier: Classifier
    free: bool
    before: Usage | None

    def keep_back(self, *circuits: int, overdraw: bool = False) -> None:
        """Let budgets keep back later jobs; the next may overdraw the QPU seconds if told so."""
        if isinstance(self.classifier.engine, DeviceEngine):
            self.classifier.engine.reserve(*circuits, overdraw=overdraw)

    def spent(self, circuits: int) -> Spent:
        """Return the cost of an order.

        Parameters
        ----------
        circuits : int
            What `quantum.costs` counts; a device's own count, failed jobs included, goes before.
        """
        if self.free:
            return FREE
        engine = self.classifier.engine
        gates = self.classifier.two_qubit_gates
        if isinstance(engine, DeviceEngine) and self.before is not None:
            used = engine.usage - self.before
            engine.told = engine.usage
            return Spent(
                jobs=used.jobs,
                circuits=used.circuits,
                shots=used.shots,
                two_qubit_gates=used.circuits * gates,
                qpu_seconds=used.qpu_seconds,
                queue_seconds=used.queue_seconds,
            )
        shots = circuits * int(getattr(engine, "shots", 0))
        return Spent(
            {**FREE, "circuits": circuits, "shots": shots, "two_qubit_gates": circuits * gates}
        )


@contextmanager
def metered(classifier: Classifier, label: str, *, free: bool = False) -> Iterator[Meter]:
    """Open an order on a classifier's engine, and end its session or batch afterwards.

    Parameters
    ----------
    classifier : Classifier
        What the order runs on.
    label : str
        What its jobs are for; the same order has the same label, so that its jobs are collected
        and not paid again when it is repeated.
    free : bool
        Whether its circuits stand for no device: a warm round.
    """
    engine = classifier.engine
    if isinstance(engine, Labelled):
        engine.begin(label)
    if not isinstance(engine, DeviceEngine):
        yield Meter(classifier, free, None)
        return
    try:
        # What an order spent that then failed is told with the next one.
        yield Meter(classifier, free, engine.told)
    finally:
        engine.reserve()
        engine.close()
