"""A schedule made ready to run: forward for chunks of rows, and the adjoint by hand.

Rows go through in chunks. With one chunk the forward pass keeps each step's input for the
gradient: forward, adjoint and the matrices' gradient are three products a step. With more it
keeps nothing and the gradient runs every chunk again, a fourth product, so that memory is that
of one chunk whatever the number of rows. Where even one chunk's inputs would take more than
`TAPE_BYTES`, the last state alone is kept and each step is undone on the way back, a fifth
product, so that memory does not grow with depth. Autograd would keep about twice as many
tensors of fresh memory, and touching a fresh page costs as much as computing on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantum.circuit.circuit import Readout
from quantum.engines.exact.contraction import (
    Arrangement,
    PhaseLayer,
    apply_steps,
    arrange,
    pull_steps_back,
    steps_of,
)
from quantum.engines.exact.dense_unitary import (
    DenseUnitary,
    ReadRows,
    observables,
    pull_observables_back,
)
from quantum.engines.exact.fusion import FusedBlock
from quantum.engines.exact.matrices import GroupMatrices, readout_signs
from quantum.engines.exact.product_states import (
    Interleaving,
    interleave,
    multiply,
    pull_product_back,
)
from quantum.engines.exact.schedule import Schedule
from quantum.engines.exact.workspace import Workspace, amplitudes_at_once, shared_pool

TAPE_BYTES = 256 * 2**20  # most memory for the inputs of one chunk's steps


@dataclass(frozen=True)
class DenseMatrices:
    """All dense matrices of one step, or the gradients to them.

    Attributes
    ----------
    cells : list of torch.Tensor or None
        Each cell's matrix; None: it has no groups.
    late : torch.Tensor or None
        The late section's matrix.
    end : torch.Tensor or None
        What meets the states at the end: of real states observables, shape (R, s, s), else the
        rows of the late section's matrix that are read out, shape (k, s).
    """

    cells: list[Tensor | None]
    late: Tensor | None
    end: Tensor | None

    def zeros(self) -> DenseMatrices:
        """Make room for the gradients to cells and the end."""
        cells = [None if cell is None else torch.zeros_like(cell) for cell in self.cells]
        end = self.end
        return DenseMatrices(cells, None, None if end is None else torch.zeros_like(end))


@dataclass(frozen=True)
class RowsTape:
    """What a chunk's gradient needs.

    Attributes
    ----------
    cells, products : list of torch.Tensor
        The cells' states, and the products of the first one, two ... of them.
    parts : int
        1 if the state before the steps is real, else 2.
    steps : list of torch.Tensor or torch.Tensor
        As `pull_steps_back` takes it.
    last, images : torch.Tensor
        The state as it is read out, and what the end makes of it.
    """

    cells: list[Tensor]
    products: list[Tensor]
    parts: int
    steps: list[Tensor] | Tensor
    last: Tensor
    images: Tensor | None


class ExecutionPlan:
    """A schedule, compiled.

    Parameters
    ----------
    schedule : Schedule
        What to do.
    blocks : sequence of FusedBlock
        All blocks.
    readouts : sequence of Readout
        What is measured.
    dtype : torch.dtype
        Real type.
    device : torch.device
        Where to compute.

    Attributes
    ----------
    chunk_rows : int
        Rows of a chunk.
    phase_layers : tuple of PhaseLayer
        What later uploads of the features do, in order of time.
    widths : list of int
        Numbers a row of each cell's encoded state, then of each layer's phases.
    """

    def __init__(
        self,
        schedule: Schedule,
        blocks: Sequence[FusedBlock],
        readouts: Sequence[Readout],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.schedule = schedule
        self.pool = shared_pool(dtype, device)
        amplitudes = amplitudes_at_once(dtype, device, len(readouts))
        self.chunk_rows = max(1, amplitudes // 2 ** len(schedule.middle.wires))
        self.matrices = GroupMatrices(blocks, schedule.groups, dtype, device)
        self.inputs = 1 if schedule.real else 2
        order, late = schedule.middle.wires, schedule.late
        first = 0
        self._cells: list[DenseUnitary | None] = []
        for cell in schedule.cells:
            after = [wire for wire in order if wire in cell.wires]
            dense = DenseUnitary(cell, first, self.inputs, after) if cell.groups else None
            self._cells.append(dense)
            first += len(cell.groups)
        self._products = _product_plans(schedule)
        self._steps, ends = steps_of(schedule.middle, first)
        self.phase_layers = tuple(step for step in self._steps if isinstance(step, PhaseLayer))
        self.widths = [self.inputs * 2 ** len(cell.wires) for cell in schedule.cells]
        self.widths += [2 * 2 ** len(layer.wires) for layer in self.phase_layers]
        self._late, self._last, order = None, Arrangement((), ()), ends
        if late is not None:
            first += len(schedule.middle.groups)
            self._late = DenseUnitary(late, first, schedule.parts)
            self._last = arrange(ends, (*late.wires, *(w for w in ends if w not in late.wires)))
            order = self._late.order
        signs = readout_signs(readouts, order)
        self.signs = signs.repeat(1, 2)[..., None].to(dtype).to(device)
        self._read = None
        if late is not None and schedule.parts == 2:
            self._read = ReadRows(signs, dtype, device)

    def build_dense(self, matrices: Tensor) -> tuple[DenseMatrices, list[list[Tensor]]]:
        """Build cells' matrices and observables from those of the groups, and the tapes."""
        cells: list[Tensor | None] = []
        tapes = []
        for cell in self._cells:
            matrix, tape = (None, []) if cell is None else cell.build(matrices)
            cells.append(matrix)
            tapes.append(tape)
        if self._late is None:
            return DenseMatrices(cells, None, None), tapes
        late, tape = self._late.build(matrices)
        end = observables(late, self.signs) if self._read is None else self._read.take(late)
        return DenseMatrices(cells, late, end), [*tapes, tape]

    def pull_dense_back(
        self,
        slopes: DenseMatrices,
        dense: DenseMatrices,
        tapes: Sequence[list[Tensor]],
        matrices: Tensor,
        gradient: Tensor,
    ) -> None:
        """Add the gradient to the groups' matrices, from that to the dense ones."""
        for cell, slope, tape in zip(self._cells, slopes.cells, tapes, strict=False):
            if cell is not None and slope is not None:
                cell.pull_back(slope, matrices, tape, gradient)
        if self._late is not None and dense.late is not None and slopes.end is not None:
            if self._read is None:
                slope = pull_observables_back(slopes.end, dense.late, self.signs)
            else:
                slope = self._read.put_back(slopes.end, dense.late)
            self._late.pull_back(slope, matrices, tapes[-1], gradient)

    def run_rows(
        self,
        values: Tensor,
        matrices: Tensor,
        dense: DenseMatrices,
        workspace: Workspace,
        keep: bool,
    ) -> tuple[Tensor, RowsTape]:
        """Run one chunk of rows.

        Parameters
        ----------
        values : torch.Tensor, shape (sum of `widths`, rows)
            The cells' encoded states and the layers' phases.
        matrices, dense
            Of this step.
        workspace : Workspace
            The tape lies in it.
        keep : bool
            Whether the tape is wanted.

        Returns
        -------
        torch.Tensor, shape (R, rows)
            Expectations.
        RowsTape
            For `pull_rows_back`.
        """
        encoded, phases = self._split(values)
        cells, products = self._product(encoded, dense, workspace)
        state = products.pop()
        parts = len(state)
        fits = keep and len(self._steps) * 2 * state.nbytes <= TAPE_BYTES
        state, steps = apply_steps(state, matrices, self._steps, workspace, fits, phases)
        z, last, images = self._read_out(state, dense, workspace)
        return z, RowsTape(cells, products, parts, steps if fits else state, last, images)

    def pull_rows_back(
        self,
        values: Tensor,
        matrices: Tensor,
        dense: DenseMatrices,
        tape: RowsTape,
        workspace: Workspace,
        weights: Tensor,
        gradient: Tensor,
        slopes: DenseMatrices,
    ) -> None:
        """Add one chunk's gradients.

        Parameters
        ----------
        values, matrices, dense, tape, workspace
            As in `run_rows`.
        weights : torch.Tensor, shape (R, rows)
            Gradient to the expectations.
        gradient : torch.Tensor
            The gradient to the groups' matrices is added to it.
        slopes : DenseMatrices
            The gradients to the dense matrices are added to them.
        """
        slope = self._pull_readout_back(tape, workspace, weights, dense, slopes)
        if self.schedule.heisenberg:
            return
        wanted = any(cell is not None for cell in self._cells)
        encoded, phases = self._split(values)
        steps, parts = self._steps, tape.parts
        slope = pull_steps_back(
            slope, matrices, steps, tape.steps, gradient, workspace, parts, wanted, phases
        )
        if not wanted:
            return
        outputs = []
        factors = zip(tape.products, tape.cells[1:], self._products, strict=True)
        for left, cell, plan in reversed(list(factors)):
            scratch = workspace.empty("scratch", *slope.shape)
            slope, right = pull_product_back(slope, left, cell, plan, scratch)
            outputs.append(right)
        outputs.append(slope)
        for part, output, target in zip(encoded, reversed(outputs), slopes.cells, strict=True):
            if target is not None:
                target.addmm_(output.reshape(len(target), -1), part.T)

    def _split(self, values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Separate the cells' encoded states from the layers' phases."""
        parts = torch.split(values, self.widths)
        return parts[: len(self._cells)], parts[len(self._cells) :]

    def _product(
        self, encoded: Sequence[Tensor], dense: DenseMatrices, workspace: Workspace
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the cells' states, and the products of the first one, two ... of them."""
        rows = encoded[0].shape[1]
        cells = []
        for part, matrix in zip(encoded, dense.cells, strict=True):
            parts = self.inputs if matrix is None else 2
            output = part if matrix is None else matrix @ part
            cells.append(output.reshape(parts, -1, rows))
        products = [cells[0]]
        for number, (cell, plan) in enumerate(zip(cells[1:], self._products, strict=True)):
            left = products[-1]
            out = workspace.empty(f"product{number}", 2, left.shape[1] * cell.shape[1], rows)
            products.append(multiply(left, cell, plan, out))
        return cells, products

    def _read_out(
        self, state: Tensor, dense: DenseMatrices, workspace: Workspace
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return expectations (R, rows), the state as read out, and what the end makes of it."""
        rows = state.shape[-1]
        if dense.end is None:
            last = state.reshape(-1, rows)
            return self.signs[:, :, 0] @ last.square(), last, None
        size = dense.end.shape[-1]
        last = self._last.apply(state, workspace, "last").reshape(size, -1)
        images = workspace.empty("images", *dense.end.shape[:-1], last.shape[1])
        torch.matmul(dense.end, last, out=images)
        if self._read is not None:
            squares = torch.mul(images, images, out=workspace.empty("scratch", *images.shape))
            return self._read.expectations(squares, rows), last, images
        terms = torch.mul(images, last, out=workspace.empty("scratch", *images.shape))
        terms = terms.view(len(images), -1, rows)
        return (terms.new_ones(1, terms.shape[1]) @ terms)[:, 0], last, images

    def _pull_readout_back(
        self,
        tape: RowsTape,
        workspace: Workspace,
        weights: Tensor,
        dense: DenseMatrices,
        slopes: DenseMatrices,
    ) -> Tensor:
        """Gradient to the state behind the steps; that to the end is added."""
        last, images, rows = tape.last, tape.images, weights.shape[1]
        if images is None or dense.end is None or slopes.end is None:
            out = workspace.empty("slope", *last.shape)
            slope = torch.mm(self.signs[:, :, 0].T, weights, out=out)
            return slope.mul_(last).mul_(2.0).view(2, -1, rows)
        if self._read is None:  # states are real, so no block lies before the end
            flat = last.view(-1, rows)
            for weight, target in zip(weights, slopes.end, strict=True):
                weighted = torch.mul(flat, weight, out=workspace.empty("scratch", *flat.shape))
                target.addmm_(weighted.view(last.shape), last.T)
            return last
        slope = self._read.slope(images, weights, workspace.empty("scratch", *images.shape))
        slopes.end.addmm_(slope, last.T)
        if self.schedule.heisenberg:
            return last
        out = torch.mm(dense.end.T, slope, out=workspace.empty("slope", *last.shape))
        return self._last.undo(out.view(2, -1, rows), workspace, "slope back")


def _product_plans(schedule: Schedule) -> list[Interleaving]:
    """How each cell but the first joins the product of those before it."""
    left: tuple[int, ...] = schedule.cells[0].wires
    plans = []
    for cell in schedule.cells[1:]:
        plans.append(interleave(left, cell.wires, schedule.middle.wires))
        left += cell.wires
    return plans
