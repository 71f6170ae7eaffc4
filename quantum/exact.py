"""The exact engine: every row's expectations at once, in torch.

The trainable part of the circuit is the same for all rows, which leaves two ways to compute
``z_rc = <psi_r| U+ Z_c U |psi_r>``, n qubits, B fused blocks, R read-outs, in multiply-adds:

* Heisenberg plan: move the R observables back through the circuit, as vectors over the Pauli
  words of their light cone, then one product with the rows' word expectations, which are
  prepared once per data set. Real product states (angle encoding) have no Y component, so F =
  3^n words remain (4^n for other encodings): at most 256 R 4^(n-2) a block, and R F a row. The
  gradient needs nothing per row but the transposed product.
* State-vector plan: move the rows' states through the circuit: 16 B 2^n a row.

The engine counts both for the data set at hand and takes the cheaper; the first wins for few
qubits or many rows. Two-qubit blocks are fused to 4x4 matrices, built for all blocks together.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from federation import BackendError, explain
from quantum.ansatz import Ansatz
from quantum.engines import Prepared
from quantum.fusion import backward_plan, forward_plan, fuse
from quantum.gates import gates_of
from quantum.linalg import (
    BlockMatrices,
    PauliTransfer,
    encoded_states,
    is_real_product,
    pauli_words,
    product_words,
    run_plan,
    z_signs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

WORD_BYTES = 256 * 2**20  # most memory for prepared word expectations
STATE_BYTES = 512 * 2**20  # most memory for the states of one chunk of rows, all blocks
PlanName = Literal["heisenberg", "state-vector"]


@dataclass(frozen=True)
class EncodedRows:
    """A prepared data set.

    Attributes
    ----------
    plan : {"heisenberg", "state-vector"}
        Which plan it is encoded for.
    values : torch.Tensor
        Word expectations, shape (F, rows), or state vectors, shape (2^n, rows).
    """

    plan: PlanName
    values: torch.Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.values.shape[1])

    def take(self, indices: torch.Tensor) -> EncodedRows:
        """Return the rows at ``indices``."""
        return EncodedRows(self.plan, self.values[:, indices.to(self.values.device)])


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
        Force a plan; None: the cheaper one for each data set.

    Raises
    ------
    BackendError
        If CUDA is asked for and not there.
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
        self._complex = torch.complex64 if precision == "single" else torch.complex128
        self._forced = plan
        self._real = is_real_product(ansatz.encoding)
        blocks = fuse(gates_of(ansatz.layers), ansatz.n_qubits)
        self._matrices = BlockMatrices(blocks, self._complex, self.device)
        self._transfer = PauliTransfer(self._complex, self.device)
        self.forward = forward_plan(blocks, ansatz.n_qubits)
        self.backward = backward_plan(blocks, ansatz.readout_wires, self._real)
        self._start = self._observables()

    def plan_for(self, rows: int) -> PlanName:
        """Choose the cheaper plan for a number of rows, by counting multiply-adds."""
        if self._forced is not None:
            return self._forced
        words = int(np.prod(self.backward.sizes))
        if words * rows * self.dtype.itemsize > WORD_BYTES:
            return "state-vector"
        readouts = len(self.ansatz.readout_wires)
        heisenberg = readouts * (self.backward.work + rows * words)
        complex_product = 4  # real multiply-adds in a complex one
        state_vector = complex_product * rows * self.forward.work
        return "heisenberg" if heisenberg <= state_vector else "state-vector"

    def prepare(self, features: np.ndarray) -> EncodedRows:
        """Encode a data set once.

        Parameters
        ----------
        features : numpy.ndarray, shape (rows, n)
            Features in radians.

        Returns
        -------
        EncodedRows
            On the engine's device.
        """
        plan = self.plan_for(len(features))
        x = torch.from_numpy(np.array(features, dtype=np.float64)).to(self.device)
        size = 4**self.ansatz.n_qubits if plan == "heisenberg" else 2**self.ansatz.n_qubits
        chunk = max(1, STATE_BYTES // (size * 64))
        parts = [self._encode(part, plan) for part in torch.split(x, chunk)]
        return EncodedRows(plan, torch.cat(parts, dim=1))

    def expectations(self, angles: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """<Z> of each read-out.

        Parameters
        ----------
        angles : torch.Tensor, shape (P,)
            Angles in radians, of the engine's dtype and device.
        prepared : EncodedRows
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, R)
            Differentiable in the angles.
        """
        rows = cast(EncodedRows, prepared)
        matrices = self._matrices(angles)
        if rows.plan == "heisenberg":
            transfers = self._transfer(matrices)
            return (run_plan(self._start, transfers, self.backward).T @ rows.values).T
        parts = list(self._chunks(rows.values))
        if len(parts) == 1:
            return self._propagate(matrices, parts[0])
        return torch.cat(
            [
                cast(torch.Tensor, checkpoint(self._propagate, matrices, part, use_reentrant=False))
                for part in parts
            ]
        )

    def _encode(self, x: torch.Tensor, plan: PlanName) -> torch.Tensor:
        encoding = self.ansatz.encoding
        if plan == "heisenberg" and self._real:
            words = product_words(encoding, self.backward.wires, x)
            return words.T.to(self.dtype).contiguous()
        states = encoded_states(encoding, self.ansatz.n_qubits, x)
        if plan == "heisenberg":
            return pauli_words(states, self.backward.wires).T.to(self.dtype).contiguous()
        return states.to(self._complex)

    def _chunks(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """Split rows so that the states kept for the gradient stay within STATE_BYTES."""
        kept = 2 * max(1, len(self.forward.moves))
        row_bytes = states.shape[0] * self._complex.itemsize * kept
        return iter(torch.split(states, max(1, STATE_BYTES // row_bytes), dim=1))

    def _propagate(self, matrices: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        final = run_plan(states, matrices, self.forward)
        weights = final.real.square() + final.imag.square()
        return weights.T @ self._signs

    @functools.cached_property
    def _signs(self) -> torch.Tensor:
        """Diagonals of the read-outs in the final order of axes, shape (2^n, R)."""
        n = self.ansatz.n_qubits
        places = [self.forward.wires.index(wire) for wire in self.ansatz.readout_wires]
        signs = torch.stack([z_signs((place,), n) for place in places], dim=1)
        return signs.to(self.dtype).to(self.device)

    def _observables(self) -> torch.Tensor:
        """Observables before the first move: Z on read-out c, I on the others; (4^R, R)."""
        readouts = len(self.ansatz.readout_wires)
        start = torch.zeros(4**readouts, readouts, dtype=self.dtype, device=self.device)
        for c in range(readouts):
            start[3 * 4 ** (readouts - 1 - c), c] = 1.0
        return start


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
            explain(
                "quantum.device = 'cuda', but torch finds no CUDA device",
                "'cpu', 'auto', or 'cuda' with a CUDA build of torch and a GPU",
                "set quantum.device=cpu",
            )
        )
    return torch.device(device)
