"""The exact engine: every row's expectations at once, in torch, with a gradient by hand.

The trainable part of the circuit is the same for all rows, n qubits, B two-qubit blocks, R
read-outs. Instead of B passes over all states the engine combines (`exact.schedule`):

* neighbouring blocks into 16x16 matrices of four qubits, one pass each;
* blocks at the start into one matrix a cell of 4 to 8 qubits, which acts on the cell's own short
  vectors, since angle encoding is a product state: next to nothing per row;
* blocks behind a cut, where only m qubits still matter, into one observable of 4^m entries a
  read-out: ``z = <psi|O|psi>``, one matrix product (Heisenberg picture). With the cut before
  the first block a row costs R 4^n multiply-adds and no state moves.

It counts multiply-adds, passes over memory and launches of every such schedule for the number
of rows at hand and takes the cheapest. Cost per row and gradient step: 3 times
``2^n (154 G + R (4 2^m + 90))`` with G the middle groups, about B / 3 less what cells and
observables take (n = 12: 2 groups for 32 blocks), against R 4^n; building the matrices costs
8^m once.

A later upload of the features is a phase an amplitude, between fixed rotations that join the
blocks around it (`exact.fusion`). The cells end at the first of them and observables begin
behind the last, so the cost is that of the blocks between as middle groups.

Memory: states and gradients of one chunk of rows (`exact.execution_plan`), whatever the number of
rows; and the encoded rows, which are kept from step to step. A row keeps the short vectors of
its cells, 2^c numbers for a cell of c qubits, but behind the ZZ feature map, which makes no
product states, a whole state: 2^(n + 1) numbers, 1.1 GB for 2,048 rows of 16 qubits in float32.
A later upload keeps 2^(r + 1) numbers more for each run of r <= 8 qubits.

Complex numbers are pairs of real ones: complex64 is two float32, complex128 two float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch

from core import BackendError
from quantum.ansatz.circuits import Ansatz
from quantum.engines.base import EncodedRows
from quantum.engines.exact.execution_plan import Expectations, Program
from quantum.engines.exact.fusion import fuse_layers
from quantum.engines.exact.linalg import (
    encoded_states,
    is_real_product,
    product_states,
    upload_phases,
)
from quantum.engines.exact.schedule import Schedule, schedules, step_cost

ENCODING_BYTES = 256 * 2**20  # most memory for the double-precision states while rows are encoded
PlanName = Literal["heisenberg", "state-vector"]


@dataclass(frozen=True)
class EncodedStates:
    """An encoded data set.

    Attributes
    ----------
    program : Program
        The compiled schedule that it is encoded for.
    values : torch.Tensor
        Real encoded states of the program's cells one behind another, for instance shape
        (2^6 + 2^6, rows) for two cells of six qubits; for the ZZ feature map real and imaginary
        parts of whole states, shape (2 2^n, rows). Behind them the phases of later uploads.
    """

    program: Program
    values: torch.Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.values.shape[1])

    def take(self, indices: torch.Tensor) -> EncodedStates:
        """Return the rows at ``indices``."""
        return EncodedStates(self.program, self.values[:, indices.to(self.values.device)])


class ExactEngine:
    """Batched exact simulation.

    Parameters
    ----------
    ansatz : Ansatz
        The circuit.
    precision : {"single", "double"}
        complex64 with float32, or complex128 with float64.
    device : {"auto", "cpu", "cuda"}
        Where to compute; ``auto`` takes CUDA when there.
    plan : {"heisenberg", "state-vector"}, optional
        Force observables before the first block, or the contrary; None: the cheaper one for
        each data set.

    Raises
    ------
    BackendError
        If CUDA is asked for and not there, or the forced plan does not fit the qubits.
    """

    def __init__(
        self,
        ansatz: Ansatz,
        precision: Literal["single", "double"] = "single",
        device: Literal["auto", "cpu", "cuda"] = "cpu",
        plan: PlanName | None = None,
    ) -> None:
        self.name = "exact"
        self.ansatz = ansatz
        self.device = pick_device(device)
        self.dtype = torch.float32 if precision == "single" else torch.float64
        n = ansatz.n_qubits
        self._real = is_real_product(ansatz.encoding)
        self._blocks, uploads = fuse_layers(ansatz.layers, ansatz.encoding, n)
        found = schedules(self._blocks, n, ansatz.readout_wires, self._real, uploads)
        self.schedules = tuple(s for s in found if plan in (None, plan_name(s)))
        self._programs: dict[Schedule, Program] = {}
        if not self.schedules:
            raise BackendError(
                f"plan = {plan!r} with {n} qubits",
                "observables of up to 10 qubits",
                "leave the plan to the engine",
            )

    def schedule_for(self, rows: int) -> Schedule:
        """Choose the cheapest schedule for a number of rows."""
        readouts = len(self.ansatz.readout_wires)
        return min(self.schedules, key=lambda schedule: step_cost(schedule, rows, readouts))

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> EncodedStates:
        """Encode a data set once.

        Parameters
        ----------
        features : numpy.ndarray, shape (rows, n)
            Features in radians.
        step_rows : int, optional
            Rows of a step, for which the cheapest schedule is chosen; None: all of them.

        Returns
        -------
        EncodedRows
            On the engine's device.
        """
        return self.encode(features, self.schedule_for(step_rows or len(features)))

    def encode(self, features: np.ndarray, schedule: Schedule) -> EncodedStates:
        """Encode a data set for one of `schedules`, see `prepare`."""
        program = self._program(schedule)
        x = torch.from_numpy(np.array(features, dtype=np.float64)).to(self.device)
        height = sum(program.widths)
        values = torch.empty(height, len(x), dtype=self.dtype, device=self.device)
        chunk = max(1, ENCODING_BYTES // (16 * height))
        for start in range(0, len(x), chunk):
            values[:, start : start + chunk] = self._encode(x[start : start + chunk], program)
        return EncodedStates(program, values)

    def expectations(self, angles: torch.Tensor, encoded: EncodedRows) -> torch.Tensor:
        """<Z> of each read-out.

        Parameters
        ----------
        angles : torch.Tensor, shape (P,)
            Angles in radians, of the engine's dtype and device.
        encoded : EncodedStates
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, R)
            Differentiable (once) in the angles.
        """
        rows = cast(EncodedStates, encoded)
        run: Callable[..., torch.Tensor] = Expectations.apply
        return run(angles, rows.values, rows.program, torch.is_grad_enabled())

    def _program(self, schedule: Schedule) -> Program:
        if schedule not in self._programs:
            readouts = self.ansatz.readout_wires
            program = Program(schedule, self._blocks, readouts, self.dtype, self.device)
            self._programs[schedule] = program
        return self._programs[schedule]

    def _encode(self, x: torch.Tensor, program: Program) -> torch.Tensor:
        encoding, schedule = self.ansatz.encoding, program.schedule
        if self._real:
            cells = [product_states(encoding, cell.wires, x) for cell in schedule.cells]
            phases = [upload_phases(encoding, turn.wires, x) for turn in program.turns]
            return torch.cat([*cells, *phases])
        n = self.ansatz.n_qubits
        states = encoded_states(encoding, n, x)
        ordered = states.view(*[2] * n, len(x)).permute(*schedule.cells[0].wires, n)
        return torch.view_as_real(ordered).movedim(-1, 0).reshape(-1, len(x))


def plan_name(schedule: Schedule) -> PlanName:
    """Name the plan that a schedule belongs to."""
    return "heisenberg" if schedule.heisenberg else "state-vector"


def pick_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Turn the setting into a torch device.

    Raises
    ------
    BackendError
        If CUDA is asked for and not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "quantum.device = 'cuda', but torch finds no CUDA device",
            "'cpu', 'auto', or 'cuda' with a CUDA build of torch and a GPU",
            "set quantum.device=cpu",
        )
    return torch.device(device)
