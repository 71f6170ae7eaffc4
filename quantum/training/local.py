"""Local training and evaluation of the quantum classifier.

Circuits are counted as `quantum.costs` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core import TrainSettings, local_optimizer
from core.settings.backends import is_shot_based
from quantum.classifier import Classifier
from quantum.costs import circuits_before_steps, circuits_per_step
from quantum.training.compiled import can_compile, train_compiled
from quantum.training.estimates import undirected
from quantum.training.schedule import learning_rate
from quantum.training.task import TrainingData, TrainResult, TrainTask, check_data

if TYPE_CHECKING:
    from core import DistillSettings
    from quantum.training.problem import Problem


def train_local(
    classifier: Classifier,
    parameters: Mapping[str, np.ndarray],
    data: TrainingData,
    train: TrainSettings,
    distill: DistillSettings,
    steps: int,
    step_offset: int = 0,
    seed: int = 0,
) -> TrainResult:
    """Train a classifier on one client's rows.

    Parameters
    ----------
    classifier, parameters, data, train, distill, steps, step_offset, seed
        As `TrainTask` has them.

    Returns
    -------
    TrainResult
        Parameters, losses and circuits.

    Raises
    ------
    DataError
        If rows, labels or soft labels do not fit each other.
    UserError
        If the loss stops being finite.
    """
    task = TrainTask(classifier, parameters, data, train, distill, steps, step_offset, seed)
    (outcome,) = train_together([task])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def train_together(tasks: Sequence[TrainTask]) -> list[TrainResult | Exception]:
    """Train several clients, in one launch of compiled loops where their engine has them.

    Parameters
    ----------
    tasks : sequence of TrainTask
        The clients, in any mixture of circuits, engines, rows and steps.

    Returns
    -------
    list of TrainResult or Exception
        In the order of the tasks, each to the last digit what `train_local` returns or raises.
    """
    found: dict[int, TrainResult | Exception] = {}
    compiled = []
    for index, task in enumerate(tasks):
        try:
            check_data(task.data, task.classifier.classes, task.distill)
            if can_compile(task):
                compiled.append(index)
            else:
                found[index] = _finished(task, *_by_torch(task))
        except Exception as error:  # one client's failure is its own
            found[index] = error
    outcomes = train_compiled([tasks[index] for index in compiled])
    for index, outcome in zip(compiled, outcomes, strict=True):
        if isinstance(outcome, Exception):
            found[index] = outcome
        else:
            found[index] = _finished(tasks[index], *outcome)
    return [found[index] for index in range(len(tasks))]


def _finished(
    task: TrainTask,
    flat: np.ndarray,
    losses: list[float],
    start_loss: float,
    noise: float = 0.0,
) -> TrainResult:
    """Count the circuits of a training, and give its parameters their names."""
    classifier, train, rows = task.classifier, task.train, len(task.data.features)
    shifts = classifier.ansatz.shifts
    per_step = circuits_per_step(train, rows, shifts, classifier.engine.name)
    circuits = circuits_before_steps(train, rows) + len(losses) * per_step
    result = classifier.unflatten(flat)
    return TrainResult(result, len(losses), tuple(losses), start_loss, circuits, noise)


def _by_torch(task: TrainTask) -> tuple[np.ndarray, list[float], float, float]:
    """Return trained parameters (D,), each step's loss, the start's, and the estimates' noise."""
    from quantum.training.optimisers import run_adam, run_cobyla, run_descent
    from quantum.training.problem import Problem

    if task.privacy is not None:
        from quantum.training.private import train_privately

        return *train_privately(task), 0.0
    train, steps = task.train, task.steps
    problem = Problem(task.classifier, task.parameters, task.data, train, task.distill, task.seed)
    optimizer = local_optimizer(train.optimizer, task.classifier.engine.name)
    if optimizer == "cobyla":
        flat, losses, first = run_cobyla(problem.value, problem.start, steps, train.learning_rate)
        return flat, losses, first, undirected(problem.angles, len(losses))
    if optimizer == "spsa":
        flat, losses = _spsa(problem, train, steps, task.step_offset, task.seed)
        return flat, losses, losses[0], problem.estimates.noise()
    by_shifts = optimizer == "parameter-shift" or is_shot_based(task.classifier.engine.name)
    gradient = problem.by_shifts if by_shifts else problem.by_autograd
    rate = learning_rate(train, task.step_offset)
    run = run_descent if optimizer == "descent" else run_adam
    theta, losses = run(gradient, problem.anchor, steps, rate)
    return theta.double().cpu().numpy(), losses, losses[0], problem.estimates.noise()


def _spsa(
    problem: Problem, train: TrainSettings, steps: int, step_offset: int, seed: int
) -> tuple[np.ndarray, list[float]]:
    """Run SPSA with the gains of the settings; return the last parameters and the losses."""
    from quantum.training.optimisers import Gains, run_spsa

    # Spall's advice: A a tenth of the steps expected, here of the most in a round.
    gains = Gains(train.learning_rate, train.perturbation, train.max_steps / 10)
    rng, angles = np.random.default_rng(seed), problem.angles
    return run_spsa(problem.measure, problem.start, angles, steps, gains, step_offset, rng)


def evaluate(
    classifier: Classifier, parameters: Mapping[str, np.ndarray], features: np.ndarray
) -> tuple[np.ndarray, int]:
    """Class probabilities of rows.

    Parameters
    ----------
    classifier : Classifier
        The model.
    parameters : mapping of numpy.ndarray
        Its parameters.
    features : numpy.ndarray, shape (rows, n)
        Projected features in radians.

    Returns
    -------
    tuple of numpy.ndarray and int
        Probabilities, float64, shape (rows, C); circuits, one a row.
    """
    encoded = classifier.prepare(features)
    return classifier.probabilities(parameters, encoded), len(features)
