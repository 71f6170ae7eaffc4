"""Local training of many clients at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantum.training.local import TrainResult, train_local

if TYPE_CHECKING:
    import numpy as np

    from core import DistillSettings, TrainSettings
    from quantum.classifier import Classifier
    from quantum.training.problem import TrainingData


@dataclass(frozen=True)
class TrainTask:
    """One client's local training: what `train_local` takes."""

    classifier: Classifier
    parameters: Mapping[str, np.ndarray]
    data: TrainingData
    train: TrainSettings
    distill: DistillSettings
    steps: int
    step_offset: int = 0
    seed: int = 0

    def run(self) -> TrainResult:
        """Train this client alone."""
        settings = (self.train, self.distill, self.steps, self.step_offset, self.seed)
        return train_local(self.classifier, self.parameters, self.data, *settings)


def train_together(tasks: Sequence[TrainTask]) -> list[TrainResult | Exception]:
    """Train several clients.

    Parameters
    ----------
    tasks : sequence of TrainTask
        The clients, in any mixture of circuits, engines, rows and steps.

    Returns
    -------
    list of TrainResult or Exception
        In the order of the tasks, each to the last digit what `train_local` returns or raises.
    """
    return [_outcome(task) for task in tasks]


def _outcome(task: TrainTask) -> TrainResult | Exception:
    try:
        return task.run()
    except Exception as error:  # one client's failure is its own
        return error
