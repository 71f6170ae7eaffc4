"""What a training costs in circuits, known before it runs; light, for the preparation message.

Circuits are counted as a quantum computer would need them, whatever engine computed them: a
forward pass of B rows is B circuits, since the commuting read-outs share one circuit; a gradient
step is what the same gradient costs by parameter shift, B (1 + 2 P) circuits (the loss itself and
two shifts for each of P angles; scale and bias cost none); a COBYLA evaluation is B, and the
start is evaluated too, which is no step.
"""

from __future__ import annotations

from federation import TrainSettings


def circuits_of_forward(rows: int) -> int:
    """Circuits of a forward pass: one a row."""
    return rows


def circuits_of_gradient(rows: int, angles: int) -> int:
    """Circuits of a gradient step by parameter shift: ``rows (1 + 2 angles)``."""
    return rows * (1 + 2 * angles)


def circuits_per_step(train: TrainSettings, rows: int, angles: int) -> int:
    """Circuits of one optimiser step.

    Parameters
    ----------
    train : TrainSettings
        Optimiser and batch.
    rows : int
        The client's training rows.
    angles : int
        P, the ansatz's angles.

    Returns
    -------
    int
        B (1 + 2 P) for Adam with B the rows of a batch, the rows for COBYLA.
    """
    if train.optimizer == "cobyla":
        return circuits_of_forward(rows)
    batch = min(train.batch_rows, rows) if train.batch_rows else rows
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
        The rows for COBYLA, which evaluates its start first; 0 for Adam.
    """
    return circuits_of_forward(rows) if train.optimizer == "cobyla" else 0
