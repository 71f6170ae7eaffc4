"""The two ansaetze, QCNN and VQC: the one source of shapes and of gate sequences.

An ansatz is a small frozen value. It knows its blocks (`encoding` writes a row's features
into the state, `layers` holds the trainable part), its number of angles and the qubits that
are read out; templates, engines, drawings and parameter checks all ask it.

A QCNN may upload its features several times (Perez-Salinas et al., arXiv 1907.02085): a read-out
is a Fourier series in each feature, its degree the number of uploads (Schuld et al., arXiv
2008.08605).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from core import QuantumSettings, SettingsError
from quantum.ansatz.gates import Block, Gate, Linear, Product, Trainable, block_of, count_angles

BlockKind = Literal["su4", "paper"]
MIN_QUBITS, MAX_QUBITS = 2, 20
SU4_CNOTS = 3  # any two-qubit unitary needs at most three CNOTs (KAK decomposition)


class Ansatz(Protocol):
    """What templates, engines and classifier ask of an ansatz."""

    @property
    def n_qubits(self) -> int:
        """Number of qubits n; rows have as many features."""

    @property
    def encoding(self) -> tuple[Block, ...]:
        """Blocks whose angles depend on the features only."""

    @property
    def layers(self) -> tuple[Block, ...]:
        """Blocks behind the encoding: trainable or fixed angles, the same for every row.

        Where features are uploaded again, the encoding's blocks come again among them.
        """

    @property
    def readout_wires(self) -> tuple[int, ...]:
        """The R qubits whose Z is measured."""

    @property
    def angles(self) -> int:
        """Number of trainable angles P."""

    @property
    def two_qubit_gates(self) -> int:
        """CNOTs per circuit after compiling, encoding included."""

    def describe(self) -> str:
        """Return a short human-readable name."""


@dataclass(frozen=True)
class QCNN:
    """Quantum convolutional network.

    Angle encoding RY(x_i), for each further upload behind a ring of convolution blocks of its
    own; then per layer a ring of two-qubit convolution blocks over the active qubits (even
    pairs, odd pairs, an odd ring's closing pair; two qubits: one block) and a pooling that
    halves the active qubits, until ``readouts`` are left; at last a ring over the retained
    qubits where more than one is retained. A pooling block writes onto the qubit that it keeps,
    and retained qubits are the ones read out.

    Parameters
    ----------
    n_qubits : int
        Qubits, 2 to 20.
    readouts : int
        Qubits read out, 1 to ``n_qubits``.
    block : {"su4", "paper"}
        Convolution block. ``su4``: RZ RY RZ on both qubits, IsingXX, IsingYY, IsingZZ, RZ RY RZ
        on both: 15 angles reach all of SU(4), counted as 3 CNOTs (KAK). ``paper``: 3 angles
        between 3 CNOTs. Pooling blocks have 3 angles and 2 CNOTs with either.
    uploads : int
        Times that the features are written into the state. Later uploads have no trainable
        angles of their own: the ``su4`` blocks between hold every single-qubit rotation.
    """

    n_qubits: int
    readouts: int = 1
    block: BlockKind = "su4"
    uploads: int = 1

    def __post_init__(self) -> None:
        _check(self.n_qubits, self.readouts, uploads=self.uploads)

    @cached_property
    def encoding(self) -> tuple[Block, ...]:
        """One RY(x_i) on each qubit."""
        return tuple(
            block_of("RY(x)", (i,), [Gate("RY", (i,), Linear(i, 1.0))])
            for i in range(self.n_qubits)
        )

    @cached_property
    def layers(self) -> tuple[Block, ...]:
        """Convolutions, poolings and later uploads in order of time."""
        return self._build()[0]

    @cached_property
    def readout_wires(self) -> tuple[int, ...]:
        """The retained qubits."""
        return self._build()[1]

    @cached_property
    def angles(self) -> int:
        """Number of trainable angles P."""
        return count_angles(self.layers)

    @cached_property
    def two_qubit_gates(self) -> int:
        """CNOTs per circuit: 3 a convolution, 2 a pooling."""
        return sum(block.cnots for block in self.layers)

    def describe(self) -> str:
        """Return for instance ``"QCNN su4, 4 qubits"`` or ``"QCNN su4, 4 qubits, 2 uploads"``."""
        uploads = f", {self.uploads} uploads" if self.uploads > 1 else ""
        return f"QCNN {self.block}, {self.n_qubits} qubits{uploads}"

    def _build(self) -> tuple[tuple[Block, ...], tuple[int, ...]]:
        """Return the layers, and the qubits that are left."""
        blocks: list[Block] = []
        active = list(range(self.n_qubits))
        for upload in range(self.uploads):
            blocks += self.encoding if upload else ()
            blocks += convolution_ring(active, self.block, count_angles(blocks))
        while len(active) > self.readouts:
            pools = min(len(active) // 2, len(active) - self.readouts)
            sources, targets = active[: 2 * pools : 2], active[1 : 2 * pools : 2]
            for source, target in zip(sources, targets, strict=True):
                blocks.append(pooling_block(source, target, count_angles(blocks)))
            active = targets + active[2 * pools :]
            if len(active) > 1:
                blocks += convolution_ring(active, self.block, count_angles(blocks))
        return tuple(blocks), tuple(active)


@dataclass(frozen=True)
class VQC:
    """Variational classifier: ZZ feature map, then real amplitudes.

    Feature map, ``feature_reps`` times: H on every qubit, phase 2 x_i, phase
    2 (pi - x_i)(pi - x_j) on every pair i < j (full entanglement, qiskit's default), written as
    RZ and IsingZZ, which equal the phase gates up to a global phase. Real amplitudes: RY on
    every qubit, then ``reps`` times a CNOT ladder (n-2, n-1) ... (0, 1) and RY on every qubit
    (qiskit's default ``reverse_linear``, the same unitary as its full entanglement).
    Read-out: qubits 0 ... R-1, which the ladder makes depend on all qubits soonest.

    Parameters
    ----------
    n_qubits : int
        Qubits, 2 to 20.
    readouts : int
        Qubits read out.
    feature_reps, reps : int
        Repetitions of the feature map and of the real amplitudes.
    """

    n_qubits: int
    readouts: int = 1
    feature_reps: int = 1
    reps: int = 3

    def __post_init__(self) -> None:
        _check(self.n_qubits, self.readouts, feature_reps=self.feature_reps, reps=self.reps)

    @cached_property
    def encoding(self) -> tuple[Block, ...]:
        """The ZZ feature map, one block per repetition."""
        n = self.n_qubits
        gates = [Gate("Hadamard", (i,)) for i in range(n)]
        gates += [Gate("RZ", (i,), Linear(i, 2.0)) for i in range(n)]
        gates += [Gate("IsingZZ", (i, j), Product(i, j)) for i in range(n) for j in range(i + 1, n)]
        block = block_of("ZZ feature map", range(n), gates)
        return (block,) * self.feature_reps

    @cached_property
    def layers(self) -> tuple[Block, ...]:
        """Rows of RY with CNOT ladders between them."""
        n = self.n_qubits
        blocks = [_rotations(n, 0)]
        for rep in range(1, self.reps + 1):
            ladder = [Gate("CNOT", (i, i + 1)) for i in reversed(range(n - 1))]
            blocks += [block_of("CNOT ladder", range(n), ladder), _rotations(n, rep * n)]
        return tuple(blocks)

    @cached_property
    def readout_wires(self) -> tuple[int, ...]:
        """Qubits 0 ... R-1."""
        return tuple(range(self.readouts))

    @cached_property
    def angles(self) -> int:
        """Number of trainable angles, n (reps + 1)."""
        return count_angles(self.layers)

    @cached_property
    def two_qubit_gates(self) -> int:
        """CNOTs per circuit: 2 for each pair of the feature map, n - 1 for each ladder."""
        return sum(block.cnots for block in self.encoding + self.layers)

    def describe(self) -> str:
        """Return for instance ``"VQC, 4 qubits"``."""
        return f"VQC, {self.n_qubits} qubits"


def build_ansatz(settings: QuantumSettings, classes: int) -> QCNN | VQC:
    """Build the ansatz that the settings ask for.

    Parameters
    ----------
    settings : QuantumSettings
        The `quantum` section.
    classes : int
        Number of classes C: two need one read-out, more need one each.

    Returns
    -------
    QCNN or VQC
        The ansatz.

    Raises
    ------
    SettingsError
        Fewer than two classes, or fewer qubits than read-outs.
    """
    if classes < 2:
        raise SettingsError(
            f"{classes} class(es)", "2 or more classes", "use data with more classes"
        )
    readouts = 1 if classes == 2 else classes
    if settings.model == "qcnn":
        return QCNN(settings.qubits, readouts, settings.block, settings.uploads)
    return VQC(settings.qubits, readouts, settings.feature_reps, settings.reps)


def _check(n_qubits: int, readouts: int, **repetitions: int) -> None:
    """Refuse numbers of qubits that cannot be used, and repetitions (by setting) below 1."""
    if not MIN_QUBITS <= n_qubits <= MAX_QUBITS:
        raise SettingsError(
            f"quantum.qubits = {n_qubits}", f"{MIN_QUBITS} to {MAX_QUBITS}", "change quantum.qubits"
        )
    if readouts < 1 or readouts > n_qubits:
        raise SettingsError(
            f"quantum.qubits = {n_qubits} with {readouts} classes, each read out on its own qubit",
            f"at least {max(readouts, MIN_QUBITS)} qubits (at most {MAX_QUBITS})",
            "raise quantum.qubits or use fewer classes",
        )
    for key, value in repetitions.items():
        if value < 1:
            raise SettingsError(f"quantum.{key} = {value}", "1 or more", f"raise quantum.{key}")


def ring(active: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring pairs of a ring: even pairs, odd pairs, an odd ring's closing pair last."""
    size = len(active)
    if size == 2:
        return [(active[0], active[1])]
    starts = [*range(0, size - 1, 2), *range(1, size, 2)]
    if size % 2:
        starts.append(size - 1)
    return [(active[i], active[(i + 1) % size]) for i in starts]


def convolution_ring(active: Sequence[int], block: BlockKind, first: int) -> tuple[Block, ...]:
    """Build a ring of convolution blocks, each with its own angles from ``first`` on."""
    build, angles = (su4_block, 15) if block == "su4" else (paper_block, 3)
    return tuple(build(a, b, first + i * angles) for i, (a, b) in enumerate(ring(active)))


def su4_block(a: int, b: int, first: int) -> Block:
    """Build the block that reaches every two-qubit unitary, angles ``first ... first + 14``."""
    singles = [(name, (wire,)) for wire in (a, b) for name in ("RZ", "RY", "RZ")]
    couplings = [(name, (a, b)) for name in ("IsingXX", "IsingYY", "IsingZZ")]
    layout = [*singles, *couplings, *singles]
    gates = tuple(Gate(name, w, Trainable(first + i)) for i, (name, w) in enumerate(layout))
    return Block("SU(4)", (a, b), gates, SU4_CNOTS)


def paper_block(a: int, b: int, first: int) -> Block:
    """Build the 3-angle convolution block of the published model."""
    closing = (Gate("CNOT", (b, a)), Gate("RZ", (a,), math.pi / 2))
    return block_of("conv", (a, b), _three_angles(a, b, first) + closing)


def pooling_block(source: int, target: int, first: int) -> Block:
    """Build the 3-angle pooling block: ``source`` controls what is written onto ``target``."""
    return block_of("pool", (source, target), _three_angles(source, target, first))


def _three_angles(a: int, b: int, first: int) -> tuple[Gate, ...]:
    return (
        Gate("RZ", (b,), -math.pi / 2),
        Gate("CNOT", (b, a)),
        Gate("RZ", (a,), Trainable(first)),
        Gate("RY", (b,), Trainable(first + 1)),
        Gate("CNOT", (a, b)),
        Gate("RY", (b,), Trainable(first + 2)),
    )


def _rotations(n: int, first: int) -> Block:
    return block_of("RY", range(n), [Gate("RY", (i,), Trainable(first + i)) for i in range(n)])
