"""Any circuit, gate by gate on batched state vectors: what the fused engine cannot plan.

Rows have their own angles, so an angle may depend on features and weights at once. A rotation is
``cos(t/2) - i sin(t/2) P`` with P a Pauli word, which permutes amplitudes and multiplies them by
phases. The gradient undoes the gates one by one (adjoint method), so memory does not grow with
depth: with ``b = O |psi>`` behind a gate, ``dz/dt = Im <b| P |psi>``.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quantum.circuit.circuit import Circuit
from quantum.circuit.gates import Gate, Trainable, gates_of
from quantum.circuit.matrices import GENERATORS, PAULI
from quantum.engines.base import EncodedRows, FeatureRows
from quantum.engines.exact.engine import pick_device
from quantum.engines.exact.matrices import fixed_matrix, readout_signs
from quantum.engines.exact.schedule import CHUNK


class GateByGateEngine:
    """Runs a circuit's gates on batched states.

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
        self.name, self.ansatz, self.n_qubits = "exact", ansatz, ansatz.n_qubits
        self.device = place = pick_device(device)
        single = precision == "single"
        self.dtype = torch.float32 if single else torch.float64
        kind = torch.complex64 if single else torch.complex128
        self.gates = tuple(gates_of(ansatz.blocks))
        self.signs = readout_signs(ansatz.readouts, range(self.n_qubits)).to(place, self.dtype)
        self.fixed = [
            None if gate.angle is not None else fixed_matrix(gate).to(place, kind)
            for gate in self.gates
        ]
        self.zero = torch.zeros(1, 2**self.n_qubits, dtype=kind, device=place)
        self.zero[0, 0] = 1.0
        self._words = {
            (g.name, g.wires): _pauli_word(g, self.n_qubits, kind, place)
            for g in self.gates
            if g.angle is not None
        }

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> FeatureRows:
        """Keep features of shape (rows, n) on the device, whatever the rows of a step."""
        return FeatureRows(FeatureRows.of(features).features.to(self.device))

    def expectations(self, slots: Tensor, encoded: EncodedRows) -> Tensor:
        """Compute the expectations of the read-outs.

        Parameters
        ----------
        slots : torch.Tensor, shape (S,)
            Slots in radians.
        encoded : FeatureRows
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, R)
            Differentiable (once) in the slots.
        """
        chunk = max(1, CHUNK // 2**self.n_qubits)
        rows = torch.split(cast(FeatureRows, encoded).features, chunk)
        parts = [_run(self._angles(slots, x), self) for x in rows]
        return torch.cat(parts)

    def _angles(self, slots: Tensor, features: Tensor) -> Tensor:
        """Angle of each rotation for each row, shape (rotations, rows)."""
        rows = len(features)
        found = []
        for gate in self.gates:
            if gate.angle is None:
                continue
            if isinstance(gate.angle, float):
                angle = features.new_full((rows,), gate.angle)
            elif isinstance(gate.angle, Trainable):
                angle = slots[gate.angle.index].expand(rows)
            else:
                angle = torch.as_tensor(gate.angle.value(features, slots)).expand(rows)
            found.append(angle.to(self.dtype))
        return torch.stack(found) if found else features.new_zeros(0, rows, dtype=self.dtype)

    def forward(self, angles: Tensor) -> Tensor:
        """States behind the circuit, shape (rows, 2^n)."""
        states = self.zero.repeat(angles.shape[1], 1)
        place = 0
        for gate, matrix in zip(self.gates, self.fixed, strict=True):
            if matrix is not None:
                states = self._multiply(states, gate, matrix)
            else:
                states = self._rotate(states, gate, angles[place])
                place += 1
        return states

    def backward(self, angles: Tensor, states: Tensor, slope: Tensor) -> Tensor:
        """Gradient to the angles, from the states behind the circuit and that to expectations."""
        images = (slope @ self.signs) * states
        gradient = torch.zeros_like(angles)
        place = len(angles)
        for gate, matrix in reversed(list(zip(self.gates, self.fixed, strict=True))):
            if matrix is not None:
                states, images = (self._multiply(s, gate, matrix.mH) for s in (states, images))
                continue
            place -= 1
            turned = self._pauli(states, gate)
            gradient[place] = (images.conj() * turned).sum(1).imag
            angle = -angles[place]
            states, images = self._rotate(states, gate, angle), self._rotate(images, gate, angle)
        return gradient

    def _pauli(self, states: Tensor, gate: Gate) -> Tensor:
        source, phases = self._words[gate.name, gate.wires]
        return states[:, source] * phases

    def _rotate(self, states: Tensor, gate: Gate, angle: Tensor) -> Tensor:
        half = angle[:, None] / 2
        return half.cos() * states - 1j * half.sin() * self._pauli(states, gate)

    def _multiply(self, states: Tensor, gate: Gate, matrix: Tensor) -> Tensor:
        front = tuple(range(1, len(gate.wires) + 1))
        places = tuple(wire + 1 for wire in gate.wires)
        view = states.reshape(-1, *[2] * self.n_qubits).movedim(places, front)
        moved = matrix @ view.reshape(len(states), len(matrix), -1)
        return moved.reshape(view.shape).movedim(front, places).reshape(states.shape)


class _Adjoint(torch.autograd.Function):
    """Expectations (rows, R) of angles (rotations, rows); keeps the last states alone."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, engine: GateByGateEngine) -> Tensor:
        states = engine.forward(angles)
        ctx.engine = engine
        ctx.save_for_backward(angles, states)
        return states.abs().square() @ engine.signs.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        angles, states = ctx.saved_tensors
        return ctx.engine.backward(angles, states, slope), None


def _run(angles: Tensor, engine: GateByGateEngine) -> Tensor:
    result: Tensor = _Adjoint.apply(angles, engine)  # type: ignore[no-untyped-call]
    return result


def _pauli_word(
    gate: Gate, n: int, kind: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where each amplitude of P |psi> comes from, and its phase: P has one entry a row."""
    basis = torch.arange(2**n)
    source, phases = basis.clone(), torch.ones(2**n, dtype=torch.complex128)
    for letter, wire in zip(GENERATORS[gate.name], gate.wires, strict=True):
        bit = (basis >> (n - 1 - wire)) & 1
        matrix = torch.tensor(PAULI[letter], dtype=torch.complex128)
        if letter != "Z":
            source = source ^ (1 << (n - 1 - wire))
            phases = phases * matrix[bit, 1 - bit]
        else:
            phases = phases * matrix[bit, bit]
    return source.to(device), phases.to(device, kind)
