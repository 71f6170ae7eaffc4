"""The exact engine: every row's expectations at once, in torch, with a gradient by hand.

The trainable part of the circuit is the same for all rows, n qubits, B two-qubit blocks, R
read-outs. Instead of B passes over all states the engine combines (`exact.schedule`):

* neighbouring blocks into 16x16 matrices of four qubits, one pass each;
* blocks at the start into one matrix a cell of 4 to 8 qubits, which acts on the cell's own short
  vectors, since angle encoding is a product state: next to nothing per row;
* blocks behind a cut, where only m qubits still matter, into one matrix of 4^m complex entries,
  of which the rows that are read out meet the states, half of them for one Z. With the cut before
  the first block real states meet an observable a read-out, ``z = <psi|O|psi>`` (Heisenberg
  picture): a row costs R 4^n multiply-adds and no state moves.

It counts multiply-adds, passes over memory and launches of every such schedule for the number
of rows at hand and takes the cheapest. Cost per row and gradient step: 3 times
``2^n (154 G + (1 - 2^-R) 4 2^m + 90)`` with G the middle groups, about B / 3 less what cells and
the end take (n = 12: 2 groups for 32 blocks), against R 4^n; building the matrices costs 8^m
once.

A later upload of the features is a phase an amplitude, between fixed rotations that join the
blocks around it (`exact.fusion`). The cells end at the first of them and the cut lies
behind the last, so the cost is that of the blocks between as middle groups.

Memory: states and gradients of one chunk of rows (`exact.execution_plan`), whatever the number of
rows; and the encoded rows, which are kept from step to step. A row keeps the short vectors of
its cells, 2^c numbers for a cell of c qubits, but behind the ZZ feature map, which makes no
product states, a whole state: 2^(n + 1) numbers, 1.1 GB for 2,048 rows of 16 qubits in float32.
A later upload keeps 2^(r + 1) numbers more for each run of r <= 8 qubits.

Complex numbers are pairs of real ones: complex64 is two float32, complex128 two float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from core import BackendError
from quantum.circuit import Block, Circuit, Gate, gates_of
from quantum.circuit.expression import Expression
from quantum.circuit.matrices import GENERATORS
from quantum.engines.base import EncodedRows
from quantum.engines.exact.execution_plan import ExecutionPlan
from quantum.engines.exact.expectations import Expectations
from quantum.engines.exact.fusion import fuse_layers
from quantum.engines.exact.matrices import fixed_matrix, pauli, z_signs
from quantum.engines.exact.schedule import Schedule, schedules, step_cost

ENCODING_BYTES = 256 * 2**20  # most memory for the double-precision states while rows are encoded
DIAGONAL = frozenset({"RZ", "IsingZZ"})


@dataclass(frozen=True)
class EncodedStates:
    """An encoded data set.

    Attributes
    ----------
    plan : ExecutionPlan
        The compiled schedule that it is encoded for.
    values : torch.Tensor
        Real encoded states of the plan's cells one behind another, for instance shape
        (2^6 + 2^6, rows) for two cells of six qubits; for the ZZ feature map real and imaginary
        parts of whole states, shape (2 2^n, rows). Behind them the phases of later uploads.
    """

    plan: ExecutionPlan
    values: Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.values.shape[1])

    def take(self, indices: Tensor) -> EncodedStates:
        """Return the rows at ``indices``."""
        return EncodedStates(self.plan, self.values[:, indices.to(self.values.device)])


class ExactEngine:
    """Batched exact simulation.

    Parameters
    ----------
    ansatz : Circuit
        The circuit.
    precision : {"single", "double"}
        complex64 with float32, or complex128 with float64.
    device : {"auto", "cpu", "cuda"}
        Where to compute; ``auto`` takes CUDA when there.

    Raises
    ------
    BackendError
        If CUDA is wanted and not there.
    """

    def __init__(
        self,
        ansatz: Circuit,
        precision: Literal["single", "double"] = "single",
        device: Literal["auto", "cpu", "cuda"] = "cpu",
    ) -> None:
        self.name = "exact"
        self.ansatz = ansatz
        self.device = pick_device(device)
        self.dtype = torch.float32 if precision == "single" else torch.float64
        n = ansatz.n_qubits
        self._real = is_real_product(ansatz.encoding)
        self._blocks, uploads = fuse_layers(ansatz.layers, ansatz.encoding, n)
        self.schedules = schedules(self._blocks, n, ansatz.readout_wires, self._real, uploads)
        self._plans: dict[Schedule, ExecutionPlan] = {}

    def schedule_for(self, rows: int) -> Schedule:
        """Choose the cheapest schedule for a number of rows."""
        readouts = len(self.ansatz.readouts)
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
        EncodedStates
            On the engine's device.
        """
        return self.encode(features, self.schedule_for(step_rows or len(features)))

    def encode(self, features: np.ndarray, schedule: Schedule) -> EncodedStates:
        """Encode a data set for one of `schedules`, see `prepare`."""
        plan = self._plan(schedule)
        x = torch.from_numpy(np.array(features, dtype=np.float64)).to(self.device)
        height = sum(plan.widths)
        values = torch.empty(height, len(x), dtype=self.dtype, device=self.device)
        chunk = max(1, ENCODING_BYTES // (16 * height))
        for start in range(0, len(x), chunk):
            values[:, start : start + chunk] = self._encode(x[start : start + chunk], plan)
        return EncodedStates(plan, values)

    def expectations(self, slots: Tensor, encoded: EncodedRows) -> Tensor:
        """Compute the expectations of the read-outs.

        Parameters
        ----------
        slots : torch.Tensor, shape (S,)
            Slots in radians, of the engine's dtype and device.
        encoded : EncodedStates
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, R)
            Differentiable (once) in the slots.
        """
        rows = cast(EncodedStates, encoded)
        run: Callable[..., Tensor] = Expectations.apply
        return run(slots, rows.values, rows.plan, torch.is_grad_enabled())

    def _plan(self, schedule: Schedule) -> ExecutionPlan:
        if schedule not in self._plans:
            readouts = self.ansatz.readouts
            plan = ExecutionPlan(schedule, self._blocks, readouts, self.dtype, self.device)
            self._plans[schedule] = plan
        return self._plans[schedule]

    def _encode(self, x: Tensor, plan: ExecutionPlan) -> Tensor:
        encoding, schedule = self.ansatz.encoding, plan.schedule
        if self._real:
            cells = [product_states(encoding, cell.wires, x) for cell in schedule.cells]
            phases = [upload_phases(encoding, layer.wires, x) for layer in plan.phase_layers]
            return torch.cat([*cells, *phases])
        n = self.ansatz.n_qubits
        states = encoded_states(encoding, n, x)
        ordered = states.view(*[2] * n, len(x)).permute(*schedule.cells[0].wires, n)
        return torch.view_as_real(ordered).movedim(-1, 0).reshape(-1, len(x))


def pick_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the torch device that the setting names.

    Raises
    ------
    BackendError
        If CUDA is requested and not there.
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


def is_real_product(encoding: Sequence[Block]) -> bool:
    """Whether the encoding is at most one RY per qubit, thus a real product state."""
    gates = list(gates_of(encoding))
    wires = [gate.wires for gate in gates]
    return all(gate.name == "RY" for gate in gates) and len(set(wires)) == len(wires)


def product_states(encoding: Sequence[Block], wires: Sequence[int], features: Tensor) -> Tensor:
    """Real product states of some qubits.

    Parameters
    ----------
    encoding : sequence of Block
        At most one RY per qubit.
    wires : sequence of int
        Qubits, first most significant.
    features : torch.Tensor, shape (rows, n), float64
        Features.

    Returns
    -------
    torch.Tensor, shape (2^len(wires), rows)
        Each amplitude the product of cos x/2 or sin x/2.
    """
    angles = _angles(encoding, wires, features)
    states = torch.ones(1, len(features), dtype=features.dtype, device=features.device)
    for wire in wires:
        half = angles[wire] / 2
        factor = torch.stack([half.cos(), half.sin()])
        states = (states[:, None] * factor[None]).flatten(0, 1)
    return states


def upload_phases(encoding: Sequence[Block], wires: Sequence[int], features: Tensor) -> Tensor:
    """Diagonal of exp(-i x Z / 2) on some qubits, x the angles of the encoding's RY there.

    Parameters
    ----------
    encoding, wires, features
        As for `product_states`.

    Returns
    -------
    torch.Tensor, shape (2 2^len(wires), rows)
        Real parts, then imaginary parts.
    """
    angles = _angles(encoding, wires, features)
    signs = torch.stack([z_signs((place,), len(wires)) for place in range(len(wires))], dim=1)
    half = signs.to(features) @ torch.stack([angles[wire] for wire in wires]) / 2
    return torch.cat([half.cos(), -half.sin()])


def encoded_states(encoding: Sequence[Block], n_qubits: int, features: Tensor) -> Tensor:
    """State vectors of encoded rows.

    Runs of diagonal gates become one matrix product of their angles with a table of signs, so
    the ZZ feature map costs two passes whatever its number of gates.

    Parameters
    ----------
    encoding : sequence of Block
        Feature blocks.
    n_qubits : int
        Number of qubits.
    features : torch.Tensor, shape (rows, n), float64
        Features.

    Returns
    -------
    torch.Tensor, shape (2^n, rows), complex128
        The states.
    """
    rows = len(features)
    states = torch.zeros(2**n_qubits, rows, dtype=torch.complex128, device=features.device)
    states[0] = 1.0
    for diagonal, run in itertools.groupby(gates_of(encoding), lambda g: g.name in DIAGONAL):
        gates = list(run)
        if diagonal:
            table = torch.stack([z_signs(gate.wires, n_qubits) for gate in gates], dim=1)
            phases = torch.stack([_values(gate, features) for gate in gates])
            total = table.to(features) @ phases / 2
            states = states * torch.polar(torch.ones_like(total), -total)
            continue
        for gate in gates:
            states = _apply(states, gate, features, n_qubits)
    return states


def _values(gate: Gate, features: Tensor) -> Tensor:
    if isinstance(gate.angle, float):
        return torch.full_like(features[:, 0], gate.angle)
    return torch.as_tensor(cast(Expression, gate.angle).value(features))


def _angles(encoding: Sequence[Block], wires: Sequence[int], features: Tensor) -> dict[int, Tensor]:
    """Angle of each qubit's RY; a qubit without one is not turned."""
    found = {gate.wires[0]: _values(gate, features) for gate in gates_of(encoding)}
    return {wire: found.get(wire, torch.zeros_like(features[:, 0])) for wire in wires}


def _apply(states: Tensor, gate: Gate, features: Tensor, n_qubits: int) -> Tensor:
    """Apply a gate to states (2^n, rows), with its own angle for each row."""
    front = range(len(gate.wires))
    view = states.reshape(*[2] * n_qubits, -1).movedim(gate.wires, tuple(front))
    flat = view.reshape(2 ** len(gate.wires), -1, states.shape[1])
    if gate.angle is None:
        applied = torch.einsum("ij,jbr->ibr", fixed_matrix(gate).to(states.device), flat)
    else:
        half = _values(gate, features) / 2
        generator = pauli(GENERATORS[gate.name]).to(states.device)
        eye = torch.eye(len(generator), dtype=states.dtype, device=states.device)
        matrices = half.cos() * eye[..., None] - 1j * half.sin() * generator[..., None]
        applied = torch.einsum("ijr,jbr->ibr", matrices, flat)
    return applied.reshape(view.shape).movedim(tuple(front), gate.wires).reshape(states.shape)
