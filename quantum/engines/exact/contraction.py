"""Carrying out a schedule: sections of groups applied to states, and the adjoint of that.

A state is a real tensor of shape (parts, 2^m, tail): parts 2 for real and imaginary part, or 1
while it is real; tail: the rows, or the columns of an identity that becomes a matrix. A group
brings its qubits' axes to the front and is one matrix product. Its adjoint is the transposed
product, and so is its inverse, since the matrices are orthogonal. An upload of the features
between two groups multiplies amplitudes by phases, a run of axes at a time; conjugate phases are
its adjoint and its inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor

from quantum.engines.exact.schedule import Section
from quantum.engines.exact.workspace import Workspace

PHASE_QUBITS = 8  # most qubits of a run whose phases are kept with the rows, 2 2^8 numbers a row
LONG_RUN = 256  # numbers in a row from which element-wise kernels are fast
SHORT_RUN = 8  # numbers in a row from which copying them by an index beats copying axis by axis
FEW_AXES = 3  # up to so many it does not


@dataclass(frozen=True)
class PhaseLayer:
    """Phases of one run of axes.

    Attributes
    ----------
    wires : tuple of int
        Qubits of the run, first most significant.
    outer, inner : int
        Product of the sizes of the axes before and behind the run.
    place : int
        Which of all phases.
    """

    wires: tuple[int, ...]
    outer: int
    inner: int
    place: int

    def apply(self, state: Tensor, phases: Tensor, out: Tensor, back: bool = False) -> Tensor:
        """Multiply a state by phases.

        Parameters
        ----------
        state : torch.Tensor, shape (2, 2^m, rows)
            The state.
        phases : torch.Tensor, shape (2 2^r, rows)
            Phases of the run's r qubits, real parts first.
        out : torch.Tensor, shape of ``state``
            Where to put the product; another memory than the state's.
        back : bool
            Multiply by the conjugate phases instead.

        Returns
        -------
        torch.Tensor
            The product.
        """
        rows = state.shape[2]
        # Copied along some of the inner axes: element-wise kernels need long contiguous runs.
        copies = min(self.inner, 1 << (LONG_RUN // rows).bit_length())
        shape = (2, self.outer, 2 ** len(self.wires), self.inner // copies, copies * rows)
        factor = phases.view(2, 1, shape[2], 1, 1, rows).expand(-1, -1, -1, -1, copies, -1)
        (real, imaginary), sign = factor.reshape(2, 1, shape[2], 1, -1), -1.0 if back else 1.0
        (first, second), (to_first, to_second) = state.reshape(shape), out.view(shape)
        torch.mul(first, real, out=to_first).addcmul_(second, imaginary, value=-sign)
        torch.mul(second, real, out=to_second).addcmul_(first, imaginary, value=sign)
        return out


def phase_layers(order: Sequence[int], first: int) -> list[PhaseLayer]:
    """Plan one upload: axes in the given order, in runs of about the same length."""
    n = len(order)
    runs = ceil(n / PHASE_QUBITS)
    edges = [n * run // runs for run in range(runs + 1)]
    return [
        PhaseLayer(tuple(order[a:b]), 2**a, 2 ** (n - b), first + run)
        for run, (a, b) in enumerate(pairwise(edges))
    ]


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

    def apply(self, state: Tensor, workspace: Workspace, name: str) -> Tensor:
        """Rearrange (parts, 2^m, tail) into the buffer of that name."""
        return _permute(state, self.sizes, self.axes, workspace, name)

    def undo(self, state: Tensor, workspace: Workspace, name: str) -> Tensor:
        """Rearrange back into the buffer of that name."""
        sizes = tuple(self.sizes[axis] for axis in self.axes)
        back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return _permute(state, sizes, back, workspace, name)


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


def steps_of(
    part: Section, first_group: int
) -> tuple[tuple[Step | PhaseLayer, ...], tuple[int, ...]]:
    """Plan a section whose first group has the given index; also the order of axes after."""
    order = part.wires
    steps: list[Step | PhaseLayer] = []
    uploads = list(part.uploads)
    for number, group in enumerate((*part.groups, None)):
        while uploads and uploads[0] == number:
            uploads.pop(0)
            steps += phase_layers(order, sum(isinstance(step, PhaseLayer) for step in steps))
        if group is not None:
            after = (*group.wires, *(wire for wire in order if wire not in group.wires))
            steps.append(Step(arrange(order, after), first_group + number))
            order = after
    return tuple(steps), order


def apply_steps(
    state: Tensor,
    matrices: Tensor,
    steps: Sequence[Step | PhaseLayer],
    workspace: Workspace,
    keep: bool = True,
    phases: Sequence[Tensor] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Apply groups to a state.

    Parameters
    ----------
    state : torch.Tensor, shape (parts, 2^m, tail)
        The state.
    matrices : torch.Tensor, shape (G, 2 2^k, 2 2^k)
        Matrices of all groups.
    steps : sequence of Step
        What to do.
    workspace : Workspace
        Both results lie in its buffers "state..." and "input...".
    keep : bool
        Whether the second result is wanted; else it is empty.
    phases : sequence of torch.Tensor
        Phases of each `PhaseLayer`.

    Returns
    -------
    torch.Tensor, shape (2, 2^m, tail)
        The state after (unchanged if there are no steps).
    list of torch.Tensor
        Each step's input; a group's arranged, shape (parts 2^k, 2^(m-k) tail).
    """
    tape = []
    _, size, tail = state.shape
    for number, step in enumerate(steps):
        label = str(number if keep else number % 2)
        if isinstance(step, PhaseLayer):
            tape += [state] if keep else []
            out = workspace.empty("state" + label, *state.shape)
            state = step.apply(state, phases[step.place], out)
            continue
        matrix = _columns(matrices[step.group], len(state))
        inputs = step.arrangement.apply(state, workspace, "input" + label)
        inputs = inputs.reshape(matrix.shape[1], -1)
        if keep:
            tape.append(inputs)
        output = workspace.empty("state" + label, 2, size, tail)
        torch.mm(matrix, inputs, out=output.view(len(matrix), -1))
        state = output
    return state, tape


def pull_steps_back(
    slope: Tensor,
    matrices: Tensor,
    steps: Sequence[Step | PhaseLayer],
    tape: Sequence[Tensor] | Tensor,
    gradient: Tensor,
    workspace: Workspace,
    parts: int,
    wanted: bool,
    phases: Sequence[Tensor] = (),
) -> Tensor:
    """Adjoint of `apply_steps`.

    Parameters
    ----------
    slope : torch.Tensor, shape (2, 2^m, tail)
        Gradient to the state after.
    matrices, steps, phases
        As for `apply_steps`.
    tape : list of torch.Tensor, or torch.Tensor of shape (2, 2^m, tail)
        The inputs, or else the state after, of which every input is had back by undoing the
        step: one product more a step, and memory that does not grow with their number.
    gradient : torch.Tensor, shape of ``matrices``
        The gradient to the matrices is added to it.
    workspace : Workspace
        The result lies in one of its buffers "slope...".
    parts : int
        Parts of the state before.
    wanted : bool
        Whether the gradient to the state before is wanted.

    Returns
    -------
    torch.Tensor, shape (parts, 2^m, tail)
        The gradient to the state before; meaningless unless wanted.
    """
    state = tape if isinstance(tape, Tensor) else None
    for number, step in reversed(list(enumerate(steps))):
        place = number % 2
        if isinstance(step, PhaseLayer):
            phase = phases[step.place]
            slope = _phase_back(step, slope, phase, workspace, f"slope{place}")
            if state is not None:
                state = _phase_back(step, state, phase, workspace, f"undone state{place}")
            continue
        before = 2 if number else parts
        matrix = _columns(matrices[step.group], before)
        shape = (before, *slope.shape[1:])
        flat = slope.reshape(len(matrix), -1)
        undone = None if state is None else _undone(matrix, state, workspace, f"undone{place}")
        inputs = tape[number] if undone is None else undone
        gradient[step.group, :, : matrix.shape[1]].addmm_(flat, inputs.T)
        if state is not None and number:
            state = step.arrangement.undo(inputs.view(shape), workspace, f"undone state{place}")
        if number or wanted:
            product = workspace.empty(f"slope{place}", *shape)
            torch.mm(matrix.T, flat, out=product.view(matrix.shape[1], -1))
            slope = step.arrangement.undo(product, workspace, f"slope back{place}")
    return slope


def _undone(matrix: Tensor, state: Tensor, workspace: Workspace, name: str) -> Tensor:
    """Return what a step's matrix was multiplied with, from the state after it."""
    after = state.reshape(len(matrix), -1)
    inputs = workspace.empty(name, matrix.shape[1], after.shape[1])
    return torch.mm(matrix.T, after, out=inputs)


def _phase_back(
    step: PhaseLayer, state: Tensor, phase: Tensor, workspace: Workspace, name: str
) -> Tensor:
    """Undo a phase layer on a state, or pull a gradient back through it, into a named buffer."""
    return step.apply(state, phase, workspace.empty(name, *state.shape), back=True)


def _columns(matrix: Tensor, parts: int) -> Tensor:
    """Take the columns that act on states of so many parts."""
    return matrix if parts == 2 else matrix[:, : matrix.shape[1] // 2]


def _permute(
    state: Tensor, sizes: tuple[int, ...], axes: tuple[int, ...], workspace: Workspace, name: str
) -> Tensor:
    if not axes:
        return state
    parts, size, tail = state.shape
    out = workspace.empty(name, parts, size, tail)
    stays = axes[-1] == len(axes) - 1  # then the runs that are copied are longer
    run = (sizes[-1] if stays else 1) * tail
    if run >= SHORT_RUN and len(axes) > FEW_AXES:
        index = _moved(sizes[:-1] if stays else sizes, axes[:-1] if stays else axes, state.device)
        flat = state.reshape(parts, -1, run)
        torch.index_select(flat, 1, index, out=out.view(parts, -1, run))
        return out
    order = (0, *(axis + 1 for axis in axes), len(axes) + 1)
    permuted = state.reshape(parts, *sizes, tail).permute(order)
    out.view(permuted.shape).copy_(permuted)
    return out


@lru_cache(maxsize=256)
def _moved(sizes: tuple[int, ...], axes: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each entry comes from when axes of these sizes are brought into that order."""
    places = torch.arange(prod(sizes), dtype=torch.int32).view(sizes)
    return places.permute(axes).reshape(-1).to(device)
