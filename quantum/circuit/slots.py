"""From what a circuit says to what engines do: slots for trained angles, Z for what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from core import SettingsError
from quantum.circuit.circuit import Readout
from quantum.circuit.expression import Expression
from quantum.circuit.gates import Block, Gate, Trainable, gates_of

PauliWords = Mapping[tuple[tuple[int, str], ...], float]
"""A sum of Pauli words: (wire, letter) pairs to coefficients."""

TO_Z = {"X": ("Hadamard", None), "Y": ("RX", math.pi / 2)}
"""The gate behind which Z is what X or Y was before it."""


def resolve(
    blocks: tuple[Block, ...], weights: int, bad: Callable[..., SettingsError]
) -> tuple[tuple[Block, ...], tuple[Expression, ...] | None]:
    """Turn angles into slots, and say how slots come from weights."""
    angles = [g.angle for g in gates_of(blocks) if isinstance(g.angle, Expression)]
    found = [angle.symbols() for angle in angles]
    used = {index for one in found for kind, index in one if kind == "weight"}
    unused = [index for index in range(weights) if index not in used]
    if unused:
        raise bad(
            f"circuit() does not use {len(unused)} of its {weights} weights "
            f"(the first is number {unused[0]})",
            "as many weights as shape() says, each used",
        )
    trained = [
        a for a, one in zip(angles, found, strict=True) if any(k == "weight" for k, _ in one)
    ]
    places = [angle.symbol[1] for angle in trained if angle.symbol]
    same = len(places) == len(trained) and len(set(places)) == len(places)
    slots = _Slots(same)
    resolved = tuple(
        Block(block.label, block.wires, tuple(slots.resolve(gate) for gate in block.gates))
        for block in blocks
    )
    return resolved, None if same else tuple(slots.formulas)


class _Slots:
    """Gives each trained angle its slot; weights that meet features have one each."""

    def __init__(self, same: bool) -> None:
        self._same = same
        self.formulas: list[Expression] = []
        self._mixed: dict[tuple[str, int], Expression] = {}

    def resolve(self, gate: Gate) -> Gate:
        if not isinstance(gate.angle, Expression):
            return gate
        found = gate.angle.symbols()
        kinds = {kind for kind, _ in found}
        if kinds == {"feature"}:
            return gate
        if kinds == {"weight"}:
            index = gate.angle.operands[0] if self._same else self._new(gate.angle)
            return Gate(gate.name, gate.wires, Trainable(index))
        for symbol in sorted(found):
            if symbol[0] == "weight" and symbol not in self._mixed:
                place = self._new(Expression(*_leaf(symbol)))
                self._mixed[symbol] = Expression("slot", (place,))
        return Gate(gate.name, gate.wires, gate.angle.replace(self._mixed))

    def _new(self, formula: Expression) -> int:
        self.formulas.append(formula)
        return len(self.formulas) - 1


def _leaf(symbol: tuple[str, int]) -> tuple[str, tuple[int]]:
    return symbol[0], (symbol[1],)


def in_z_basis(
    blocks: tuple[Block, ...],
    readouts: Sequence[PauliWords],
    bad: Callable[..., SettingsError],
) -> tuple[tuple[Block, ...], tuple[Readout, ...]]:
    """Turn what is measured into Z, by gates behind the circuit."""
    letters: dict[int, str] = {}
    for word in (word for readout in readouts for word in readout):
        for wire, letter in word:
            if letters.setdefault(wire, letter) != letter:
                raise bad(
                    f"observables() measures {letters[wire]} and {letter} of wire {wire}",
                    "one of X, Y, Z for each wire, so that the same shots serve all",
                )
    turned = tuple(
        Block(f"measure {letter}", (wire,), (Gate(name, (wire,), angle),))
        for wire, letter in sorted(letters.items())
        if letter != "Z"
        for name, angle in (TO_Z[letter],)
    )
    words = tuple(
        tuple((factor, tuple(wire for wire, _ in word)) for word, factor in readout.items())
        for readout in readouts
    )
    return blocks + turned, words
