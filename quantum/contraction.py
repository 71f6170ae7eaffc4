"""Carrying out a schedule: sections of groups applied to states, and the adjoint of that.

A state is a real tensor of shape (parts, 2^m, tail): parts 2 for real and imaginary part, or 1
while it is real; tail: the rows, or the columns of an identity that becomes a matrix. A group
brings its qubits' axes to the front and is one matrix product. Its adjoint is the transposed
product, and so is its inverse, since the matrices are orthogonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantum.schedule import Section


@dataclass(frozen=True)
class Arrangement:
    """Bringing a state's axes into another order, neighbours that stay neighbours merged.

    Attributes
    ----------
    sizes, axes : tuple of int
        Merged sizes before, and which comes where; empty if nothing moves.
    """

    sizes: tuple[int, ...]
    axes: tuple[int, ...]

    def apply(self, state: torch.Tensor) -> torch.Tensor:
        """Rearrange (parts, 2^m, tail)."""
        return _permute(state, self.sizes, self.axes)

    def undo(self, state: torch.Tensor) -> torch.Tensor:
        """Rearrange back."""
        sizes = tuple(self.sizes[axis] for axis in self.axes)
        back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return _permute(state, sizes, back)


@dataclass(frozen=True)
class Step:
    """One group: how to arrange the state first, and which matrix."""

    arrangement: Arrangement
    group: int


def arrange(before: Sequence[int], after: Sequence[int]) -> Arrangement:
    """Plan bringing axes from the order of qubits ``before`` into ``after``."""
    places = [before.index(wire) for wire in after]
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] + 1 == place:
            runs[-1].append(place)
        else:
            runs.append([place])
    if len(runs) == 1:
        return Arrangement((), ())
    ordered = sorted(runs)
    return Arrangement(
        tuple(2 ** len(run) for run in ordered), tuple(ordered.index(run) for run in runs)
    )


def steps_of(part: Section, first_group: int) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Steps of a section whose first group has the given index, and the order of axes after."""
    order = part.wires
    steps = []
    for number, group in enumerate(part.groups):
        after = (*group.wires, *(wire for wire in order if wire not in group.wires))
        steps.append(Step(arrange(order, after), first_group + number))
        order = after
    return tuple(steps), order


def apply_steps(
    state: torch.Tensor, matrices: torch.Tensor, steps: Sequence[Step], keep: bool = True
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Apply groups to a state.

    Parameters
    ----------
    state : torch.Tensor, shape (parts, 2^m, tail)
        The state.
    matrices : torch.Tensor, shape (G, 2 2^k, 2 2^k)
        Matrices of all groups.
    steps : sequence of Step
        What to do.
    keep : bool
        Whether the second result is wanted; else it is empty.

    Returns
    -------
    torch.Tensor, shape (2, 2^m, tail)
        The state after (unchanged if there are no steps).
    list of torch.Tensor
        Each step's arranged input, shape (parts 2^k, 2^(m-k) tail).
    """
    tape = []
    for step in steps:
        matrix = matrices[step.group]
        parts, size, tail = state.shape
        columns = matrix.shape[1] * parts // 2
        inputs = step.arrangement.apply(state).reshape(columns, -1)
        if keep:
            tape.append(inputs)
        state = (matrix[:, :columns] @ inputs).view(2, size, tail)
    return state, tape


def pull_steps_back(
    slope: torch.Tensor,
    matrices: torch.Tensor,
    steps: Sequence[Step],
    tape: Sequence[torch.Tensor] | torch.Tensor,
    gradient: torch.Tensor,
    parts: int,
    wanted: bool,
) -> torch.Tensor:
    """Adjoint of `apply_steps`.

    Parameters
    ----------
    slope : torch.Tensor, shape (2, 2^m, tail)
        Gradient to the state after.
    matrices, steps
        As for `apply_steps`.
    tape : list of torch.Tensor, or torch.Tensor of shape (2, 2^m, tail)
        The inputs, or else the state after, of which every input is had back by undoing the
        step: one product more a step, and memory that does not grow with their number.
    gradient : torch.Tensor, shape of ``matrices``
        The gradient to the matrices is added to it.
    parts : int
        Parts of the state before.
    wanted : bool
        Whether the gradient to the state before is wanted.

    Returns
    -------
    torch.Tensor, shape (parts, 2^m, tail)
        The gradient to the state before; meaningless unless wanted.
    """
    state = tape if isinstance(tape, torch.Tensor) else None
    for number, step in reversed(list(enumerate(steps))):
        before = 2 if number else parts
        matrix = matrices[step.group][:, : matrices.shape[2] * before // 2]
        shape = (before, *slope.shape[1:])
        flat = slope.reshape(len(matrix), -1)
        inputs = tape[number] if state is None else matrix.T @ state.reshape(len(matrix), -1)
        gradient[step.group, :, : matrix.shape[1]].addmm_(flat, inputs.T)
        if number or wanted:
            slope = step.arrangement.undo((matrix.T @ flat).view(shape))
        if state is not None and number:
            state = step.arrangement.undo(inputs.view(shape))
    return slope


def _permute(state: torch.Tensor, sizes: tuple[int, ...], axes: tuple[int, ...]) -> torch.Tensor:
    if not axes:
        return state
    parts, size, tail = state.shape
    order = (0, *(axis + 1 for axis in axes), len(axes) + 1)
    return state.reshape(parts, *sizes, tail).permute(order).reshape(parts, size, tail)
