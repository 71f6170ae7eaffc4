"""Sections turned into one matrix: a cell's unitary, and the observables behind the cut.

Both come from applying a section's groups to the columns of an identity: ``L = [Re U; Im U]``
acts on real vectors, ``F = [L, J L]`` with ``J L = [-Im U; Re U]`` on real pairs. Of real states
an observable is ``O_c = F^T Z_c F``, real and symmetric; of complex ones the rows of F that are
read out cost less (`ReadRows`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quantum.engines.exact.contraction import apply_steps, arrange, pull_steps_back, steps_of
from quantum.engines.exact.schedule import Section
from quantum.engines.exact.workspace import Workspace


class DenseUnitary:
    """One section of the schedule as a matrix.

    Parameters
    ----------
    part : Section
        The section, on m qubits.
    first_group : int
        Index of its first group's matrix.
    parts : int
        1 if it acts on real states, else 2.
    after : sequence of int, optional
        Order of the qubits of its outputs; None: as they come, see `order`.
    """

    def __init__(
        self, part: Section, first_group: int, parts: int, after: Sequence[int] | None = None
    ) -> None:
        self.parts = parts
        self.size = 2 ** len(part.wires)
        # One group on all qubits is the matrix itself: a tenth of a step's time at 4 qubits.
        whole = len(part.groups) == 1 and part.groups[0].wires == part.wires
        self._whole = first_group if whole else None
        self._steps, ends = steps_of(part, first_group)
        self.order = ends if after is None else tuple(after)
        self._last = arrange(ends, self.order)

    def build(self, matrices: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Build F, shape (2 2^m, parts 2^m), and the tape of its steps."""
        size, workspace = self.size, Workspace(matrices.dtype, matrices.device)
        tape: list[Tensor] = []
        if self._whole is not None:
            state = matrices[self._whole, :, :size].reshape(2, size, size)
        else:
            eye = torch.eye(size, dtype=matrices.dtype, device=matrices.device)
            state, tape = apply_steps(eye[None], matrices, self._steps, workspace)
        columns = self._last.apply(state, workspace, "ordered").reshape(2 * size, size)
        if self.parts == 1:
            return columns, tape
        return torch.cat([columns, torch.cat([-columns[size:], columns[:size]])], dim=1), tape

    def pull_back(
        self, slope: Tensor, matrices: Tensor, tape: list[Tensor], gradient: Tensor
    ) -> None:
        """Add the gradient to the matrices, from that to F, to ``gradient``."""
        size, workspace = self.size, Workspace(matrices.dtype, matrices.device)
        columns = slope[:, :size]
        if self.parts == 2:
            upper = columns[:size] + slope[size:, size:]
            columns = torch.cat([upper, columns[size:] - slope[:size, size:]])
        state = self._last.undo(columns.reshape(2, size, size), workspace, "ordered")
        if self._whole is not None:
            gradient[self._whole, :, :size].add_(state.reshape(2 * size, size))
            return
        pull_steps_back(
            state, matrices, self._steps, tape, gradient, workspace, parts=1, wanted=False
        )


def observables(columns: Tensor, signs: Tensor) -> Tensor:
    """Observables before a section.

    Parameters
    ----------
    columns : torch.Tensor, shape (2 2^m, parts 2^m)
        F of the section.
    signs : torch.Tensor, shape (R, 2 2^m, 1)
        Diagonals of the read-outs' Z, twice.

    Returns
    -------
    torch.Tensor, shape (R, parts 2^m, parts 2^m)
        ``F^T Z_c F``.
    """
    return torch.matmul(columns.T, signs * columns)


def pull_observables_back(slope: Tensor, columns: Tensor, signs: Tensor) -> Tensor:
    """Gradient to F from that to the observables, symmetric, same shapes as there."""
    return (signs * torch.matmul(columns, slope)).sum(0).mul_(2.0)


class ReadRows:
    """The rows of the late section's matrix that a read-out of complex states needs.

    A state has length 1, so ``z = d_0 + sum_k (d_k - d_0) |y_k|^2`` with d the read-out's
    diagonal, d_0 its least entry and y the state behind the section: of one Z half of the rows.

    Parameters
    ----------
    diagonals : torch.Tensor, shape (R, 2^m), float64
        The read-outs' diagonals.
    dtype : torch.dtype
        Real type.
    device : torch.device
        Where to compute.
    """

    def __init__(self, diagonals: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        least = diagonals.min(dim=1, keepdim=True).values
        above = diagonals - least
        rows = above.any(dim=0).nonzero()[:, 0]
        self._rows = torch.cat([rows, rows + diagonals.shape[1]]).to(device)
        self._least = least.to(dtype).to(device)
        self._above = above[:, rows].repeat(1, 2).to(dtype).to(device)

    def take(self, matrix: Tensor) -> Tensor:
        """Return the rows, shape (k, 2 2^m)."""
        return matrix.index_select(0, self._rows)

    def put_back(self, slope: Tensor, matrix: Tensor) -> Tensor:
        """Gradient to the whole matrix from that to the rows."""
        return torch.zeros_like(matrix).index_copy_(0, self._rows, slope)

    def expectations(self, squares: Tensor, rows: int) -> Tensor:
        """Return the expectations (R, rows) of the squares of y, shape (k, rest rows)."""
        terms = (self._above @ squares).view(len(self._above), -1, rows)
        return self._least + terms.sum(dim=1)

    def slope(self, images: Tensor, weights: Tensor, out: Tensor) -> Tensor:
        """Gradient to y, shape (k, rest rows), from that to the expectations, (R, rows)."""
        rows = weights.shape[1]
        factors = self._above.T @ (2.0 * weights)
        shape = (len(images), -1, rows)
        torch.mul(images.view(shape), factors[:, None], out=out.view(shape))
        return out
