"""A circuit as rotations of its observable's Pauli coefficients.

An observable is a real vector, one coefficient for each of the 4^n Pauli words. Under a rotation
``R = exp(-i t P / 2)`` a word that commutes with P stays, and one that anticommutes turns in
a plane: ``R^ Q R = cos t Q + sin t (i P Q)``. So going backwards through the circuit (the
Heisenberg picture) each rotation is a list of pairs of coefficients and one angle, all real. Gates
without angle that map Pauli words to Pauli words (Clifford gates) are moved behind the last
rotation, where they only change which words are measured, and change the words of later rotations.

A row enters through its encoded state's expectations of the words, which no angle changes, so an
expectation is one product of two real vectors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantum.circuit.circuit import Circuit
from quantum.circuit.expression import Expression
from quantum.circuit.gates import Gate, Trainable, gates_of
from quantum.circuit.matrices import GENERATORS, fixed_gate_matrix, pauli_matrix

MOST_QUBITS = 6
MOST_PAIRS = 60_000
"""Turned pairs up to which this is quicker than a state vector (`bench.engine`)."""

EIGHTH = math.pi / 4
LETTERS = "IXZY"  # by x + 2 z
Word = tuple[int, int]
"""A Pauli word: its X bits and its Z bits, qubit q at bit q; both set is a Y."""


@dataclass(frozen=True)
class Rotation:
    """A rotation with all Clifford gates behind it: its word, its sign, and its angle."""

    word: Word
    sign: int
    angle: Trainable | Expression | float


@dataclass(frozen=True, eq=False)
class Encoder:
    """From features to expectations of words in the encoded states.

    Attributes
    ----------
    rotations : tuple
        The encoding's rotations in order of time: an angle, and the pairs that it acts on.
    start : numpy.ndarray, (met words,)
        The words' expectations before them.
    wanted : numpy.ndarray of int64, (M,)
        Which of the words are asked for.
    """

    rotations: tuple[tuple[Expression | float, np.ndarray, np.ndarray], ...]
    start: np.ndarray
    wanted: np.ndarray

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Return the expectations (M, rows) of rows' features (rows, n), float64."""
        values = np.repeat(self.start[:, None], len(features), axis=1)
        for angle, a, b in self.rotations:
            t = angle.value(features=features) if isinstance(angle, Expression) else angle
            cos, sin, x, y = np.cos(t), np.sin(t), values[a], values[b]
            # <R^ A R> = cos <A> + sin <B>, <R^ B R> = cos <B> - sin <A>
            values[a], values[b] = cos * x + sin * y, cos * y - sin * x
        return np.asarray(values[self.wanted])


@dataclass(frozen=True, eq=False)
class RotationPlan:
    """What the compiled functions run, for one circuit.

    Attributes
    ----------
    slots, readouts, size : int
        S, R, and the number K of coefficients that are ever used.
    first, second : numpy.ndarray of int32, (pairs,)
        The pairs, rotation by rotation: they go from ``(a, b)`` to
        ``(cos a - sin b, cos b + sin a)``.
    starts : numpy.ndarray of int64, (G + 1,)
        Where each rotation's pairs start; the last rotation in time comes first.
    slot : numpy.ndarray of int64, (G,)
        Each rotation's slot; -1: a fixed angle.
    factor, offset : numpy.ndarray, (G,)
        The angle is ``factor * slot + offset``, radians.
    observables : numpy.ndarray, (K, R)
        The measured observables' coefficients.
    columns : numpy.ndarray of int64, (M,)
        The coefficients that rows can meet.
    encoder : Encoder
        Makes what rows meet them with.
    """

    slots: int
    readouts: int
    size: int
    first: np.ndarray
    second: np.ndarray
    starts: np.ndarray
    slot: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    observables: np.ndarray
    columns: np.ndarray
    encoder: Encoder

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What the compiled functions take."""
        pairs = (self.first, self.second, self.starts, self.slot, self.factor, self.offset)
        return *pairs, self.observables, self.columns


def can_run(circuit: Circuit) -> bool:
    """Whether the circuit is small, its features stand at its start, and its gates are known."""
    if circuit.n_qubits > MOST_QUBITS or any(g.needs_features for g in gates_of(circuit.layers)):
        return False
    if not all(_is_known(gate) for gate in gates_of(circuit.blocks)):
        return False
    return len(plan_of(circuit).first) <= MOST_PAIRS


def _is_known(gate: Gate) -> bool:
    return gate.name in GENERATORS or gate.name == "T" or _rules(gate) is not None


@functools.lru_cache(maxsize=256)
def _rules(gate: Gate) -> dict[Word, tuple[Word, int]] | None:
    """Return ``C^ Q C`` of a gate C for each word Q of its qubits; None: it is no Clifford gate."""
    if gate.angle is not None or len(gate.wires) > 2:
        return None
    matrix, k = fixed_gate_matrix(gate), len(gate.wires)
    words = [(x, z) for x in range(2**k) for z in range(2**k)]
    matrices = {word: pauli_matrix("".join(_letters(word, k))) for word in words}
    rules = {}
    for word in words:
        image_matrix = matrix.conj().T @ matrices[word] @ matrix
        overlaps = {w: np.trace(m @ image_matrix).real / 2**k for w, m in matrices.items()}
        image = max(overlaps, key=lambda w: abs(overlaps[w]))
        if abs(abs(overlaps[image]) - 1) > 1e-9:
            return None
        rules[word] = image, round(overlaps[image])
    return rules


def _letters(word: Word, qubits: int) -> list[str]:
    x, z = word
    return [LETTERS[(x >> q & 1) + 2 * (z >> q & 1)] for q in range(qubits)]


def _behind(word: Word, sign: int, cliffords: Iterable[Gate]) -> tuple[Word, int]:
    """``C^ Q C`` with C the product of gates in order of time."""
    x, z = word
    for gate in reversed(list(cliffords)):
        rules = _rules(gate)
        assert rules is not None
        own = tuple(sum((bits >> w & 1) << k for k, w in enumerate(gate.wires)) for bits in (x, z))
        (new_x, new_z), factor = rules[own[0], own[1]]
        sign *= factor
        for k, wire in enumerate(gate.wires):
            x = x & ~(1 << wire) | (new_x >> k & 1) << wire
            z = z & ~(1 << wire) | (new_z >> k & 1) << wire
    return (x, z), sign


def _rotations(circuit: Circuit) -> tuple[list[Rotation], list[Rotation], list[Gate]]:
    """Rotations of the encoding and of the layers, in order of time, and the gates behind them."""
    cliffords: list[Gate] = []
    parts: list[list[Rotation]] = []
    for blocks in (circuit.encoding, circuit.layers):
        parts.append([])
        for gate in gates_of(blocks):
            generator = "Z" if gate.name == "T" else GENERATORS.get(gate.name)
            if generator is None:
                cliffords.append(gate)
                continue
            letters = dict(zip(gate.wires, generator, strict=True))
            x = sum(1 << wire for wire, letter in letters.items() if letter in "XY")
            z = sum(1 << wire for wire, letter in letters.items() if letter in "ZY")
            word, sign = _behind((x, z), 1, cliffords)
            angle: Any = EIGHTH if gate.name == "T" else gate.angle
            parts[-1].append(Rotation(word, sign, angle))
    return parts[0], parts[1], cliffords


@functools.lru_cache(maxsize=4096)
def pairs_of(word: Word, sign: int, qubits: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of words ``(Q, i sign P Q)`` that a rotation about P mixes.

    Words are numbered ``x + z 2^n``; the pairs' first members and their second ones, int64.
    With ``P = i^y X^x Z^z``, y its number of Y, the power of i in front of ``i P Q`` is
    ``1 + y_P + y_Q - y_PQ + 2 |z_P & x_Q|``; it is real where the two anticommute.
    """
    count = np.bitwise_count
    (x, z), number = word, np.arange(4**qubits)
    other_x, other_z = number & (2**qubits - 1), number >> qubits
    new_x, new_z = x ^ other_x, z ^ other_z
    anticommutes = (count(x & other_z) + count(z & other_x)) % 2 == 1
    power = 1 + count(np.int64(x & z)) + count(other_x & other_z).astype(np.int64)
    power = power - count(new_x & new_z) + 2 * count(z & other_x).astype(np.int64)
    found = anticommutes & (power % 4 == (0 if sign > 0 else 2))
    return number[found], (new_x + (new_z << qubits))[found]


@functools.lru_cache(maxsize=64)
def plan_of(circuit: Circuit) -> RotationPlan:
    """Compile a circuit (see `can_run`)."""
    n = circuit.n_qubits
    encoding, layers, cliffords = _rotations(circuit)
    start = np.zeros((4**n, len(circuit.readouts)))
    for column, readout in enumerate(circuit.readouts):
        for coefficient, wires in readout:
            (x, z), sign = _behind((0, sum(1 << wire for wire in wires)), 1, cliffords)
            start[x + (z << n), column] += sign * coefficient
    measured: np.ndarray = np.any(start != 0, axis=1)
    met = _met_by_rows(encoding, n)
    rotations = [(one, *pairs_of(one.word, one.sign, n)) for one in reversed(layers)]
    kept = _kept([pair for _, *pair in rotations], measured, met)
    alive = [(a[keep], b[keep]) for keep, (_, a, b) in zip(kept, rotations, strict=True)]
    ends = [np.flatnonzero(measured), *(part for pair in alive for part in pair)]
    used = np.unique(np.concatenate(ends))
    place = np.full(4**n, -1)
    place[used] = np.arange(len(used))
    seen = met[used]
    angles = [_angle(one.angle) for one, *_ in rotations]
    return RotationPlan(
        slots=circuit.slots,
        readouts=len(circuit.readouts),
        size=len(used),
        first=np.concatenate([place[a] for a, _ in alive] or [used[:0]]).astype(np.int32),
        second=np.concatenate([place[b] for _, b in alive] or [used[:0]]).astype(np.int32),
        starts=np.cumsum([0, *(len(a) for a, _ in alive)], dtype=np.int64),
        slot=np.array([slot for slot, _ in angles], dtype=np.int64),
        factor=np.array([float(slot >= 0) for slot, _ in angles]),
        offset=np.array([offset for _, offset in angles]),
        observables=np.ascontiguousarray(start[used]),
        columns=np.flatnonzero(seen),
        encoder=_encoder(encoding, met, used[seen], n),
    )


def _encoder(encoding: list[Rotation], met: np.ndarray, words: np.ndarray, n: int) -> Encoder:
    """Build the encoder; words that no row meets are not computed."""
    place, rotations = np.cumsum(met) - 1, []
    for one in encoding:
        first, second = pairs_of(one.word, one.sign, n)
        angle: Any = one.angle
        rotations.append((angle, place[first[met[first]]], place[second[met[first]]]))
    return Encoder(tuple(rotations), _zero_state(n)[met], place[words])


def _angle(angle: Any) -> tuple[int, float]:
    return (angle.index, 0.0) if isinstance(angle, Trainable) else (-1, float(angle))


def _met_by_rows(encoding: list[Rotation], n: int) -> np.ndarray:
    """Which words some row's encoded state may have an expectation of, (4^n,) of bool."""
    met = np.asarray(_zero_state(n) != 0)
    for one in encoding:
        first, second = pairs_of(one.word, one.sign, n)
        met[first] |= met[second]
        met[second] |= met[first]
    return met


def _zero_state(n: int) -> np.ndarray:
    """Return all words' expectations in |0...0>: one for those of I and Z alone."""
    x_bits = np.arange(4**n) & (2**n - 1)
    return np.asarray(x_bits == 0, dtype=np.float64)


def _kept(pairs: list[Any], start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """Which pairs of each rotation can be other than zero and reach what rows meet."""
    reached, masks = start.copy(), []
    for first, second in pairs:
        mask = reached[first] | reached[second]
        masks.append(mask)
        reached[first] |= mask
        reached[second] |= mask
    needed = end.copy()
    for k in range(len(pairs) - 1, -1, -1):
        first, second = pairs[k]
        masks[k] &= needed[first] | needed[second]
        needed[first[masks[k]]] = True
        needed[second[masks[k]]] = True
    return masks
