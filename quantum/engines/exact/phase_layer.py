"""Later uploads of the features: amplitudes times phases, row by row, a run of axes at a time.

An upload is ``exp(-i x Z / 2)`` on each qubit, its fixed turns being part of the blocks around it
(`exact.fusion`). It takes four multiply-adds an amplitude and run, RY four for each qubit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import torch

PHASE_QUBITS = 8  # most qubits of a run whose phases are kept with the rows, 2 2^8 numbers a row
LONG_RUN = 256  # numbers in a row from which element-wise kernels are fast


@dataclass(frozen=True)
class Turn:
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

    def apply(
        self, state: torch.Tensor, phases: torch.Tensor, out: torch.Tensor, back: bool = False
    ) -> torch.Tensor:
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


def turns_of(order: Sequence[int], first: int) -> list[Turn]:
    """Plan one upload: axes in the given order, in runs of about the same length."""
    n = len(order)
    runs = ceil(n / PHASE_QUBITS)
    edges = [n * run // runs for run in range(runs + 1)]
    return [
        Turn(tuple(order[a:b]), 2**a, 2 ** (n - b), first + run)
        for run, (a, b) in enumerate(pairwise(edges))
    ]
