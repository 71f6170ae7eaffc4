"""What a training costs in circuits, known before it runs; light, for the preparation message.

Circuits are counted as a quantum computer would need them, whatever engine computed them: a
forward pass of B rows is B circuits, since the commuting read-outs share one circuit. With B the
rows of a step and P the angles, a step costs

* Adam, by autograd or by parameter shift: ``B (1 + 2 P)``, the loss itself and two shifts for each
  angle (scale and bias cost none);
* SPSA: ``2 B``, whatever the number of angles;
* COBYLA: ``B`` an evaluation, and the start is evaluated too, which is no step.

Each of these is one job. Warm rounds on the exact simulator cost nothing.
"""

from __future__ import annotations

from core import TrainSettings, local_optimizer


def step_rows(train: TrainSettings, rows: int) -> int:
    """Rows B of a step: ``train.batch_rows``, or all."""
    return min(train.batch_rows, rows) if train.batch_rows else rows


def circuits_of_forward(rows: int) -> int:
    """Circuits of a forward pass: one a row."""
    return rows


def circuits_of_gradient(rows: int, angles: int) -> int:
    """Circuits of a gradient step by parameter shift: ``rows (1 + 2 angles)``."""
    return rows * (1 + 2 * angles)


def circuits_per_step(train: TrainSettings, rows: int, angles: int, backend: str = "exact") -> int:
    """Circuits of one optimiser step.

    Parameters
    ----------
    train : TrainSettings
        Optimiser and batch.
    rows : int
        The client's training rows.
    angles : int
        P, the ansatz's angles.
    backend : str
        What the client runs on, which decides what ``train.optimizer = auto`` is.

    Returns
    -------
    int
        B (1 + 2 P) for Adam, 2 B for SPSA, B for COBYLA.
    """
    batch = step_rows(train, rows)
    optimizer = local_optimizer(train.optimizer, backend)
    if optimizer == "cobyla":
        return circuits_of_forward(batch)
    if optimizer == "spsa":
        return 2 * circuits_of_forward(batch)
    return circuits_of_gradient(batch, angles)


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
    if train.optimizer != "cobyla":
        return 0
    return circuits_of_forward(step_rows(train, rows))
