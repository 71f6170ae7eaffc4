"""Parts that several ansätze share: encoding, two-qubit blocks, and who neighbours whom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from core import SettingsError
from quantum.circuit.recorder import CNOT, RY, RZ, IsingXX, IsingYY, IsingZZ, block

BlockKind = Literal["su4", "paper"]
BLOCK_ANGLES = {"su4": 15, "paper": 3}
POOLING_ANGLES = 3


def encode(features: Any, wires: Sequence[int]) -> None:
    """Write the features into the state: RY(x_i) on qubit i, features of shape (..., n)."""
    for place, wire in enumerate(wires):
        with block("RY(x)"):
            RY(features[..., place], wire)


def rotate(angles: Iterator[Any], wire: int) -> None:
    """Turn a qubit by RZ, RY, RZ, which reach all of SU(2): three angles."""
    RZ(next(angles), wire)
    RY(next(angles), wire)
    RZ(next(angles), wire)


def convolution(kind: str, angles: Iterator[Any], first: int, second: int) -> None:
    """Apply a two-qubit block.

    Parameters
    ----------
    kind : {"su4", "paper"}
        ``su4``: RZ RY RZ on both qubits, IsingXX, IsingYY, IsingZZ, RZ RY RZ on both: 15 angles
        reach all of SU(4), counted as 3 CNOTs (KAK). ``paper``: the published model's 3 angles
        between 3 CNOTs.
    angles : iterator
        Where its angles come from, `BLOCK_ANGLES` of them.
    first, second : int
        The qubits.
    """
    if kind == "paper":
        with block("conv", (first, second)):
            _three_angles(angles, first, second)
            CNOT((second, first))
            RZ(math.pi / 2, first)
        return
    with block("SU(4)", (first, second)):
        rotate(angles, first)
        rotate(angles, second)
        for coupling in (IsingXX, IsingYY, IsingZZ):
            coupling(next(angles), (first, second))
        rotate(angles, first)
        rotate(angles, second)


def pooling(angles: Iterator[Any], source: int, target: int) -> None:
    """Let ``source`` control what is written onto ``target``: 3 angles, 2 CNOTs."""
    with block("pool", (source, target)):
        _three_angles(angles, source, target)


def _three_angles(angles: Iterator[Any], first: int, second: int) -> None:
    RZ(-math.pi / 2, second)
    CNOT((second, first))
    RZ(next(angles), first)
    RY(next(angles), second)
    CNOT((first, second))
    RY(next(angles), second)


def ring(active: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring pairs of a ring: even pairs, odd pairs, an odd ring's closing pair last."""
    size = len(active)
    if size < 3:
        return [(active[0], active[1])] if size == 2 else []
    starts = [*range(0, size - 1, 2), *range(1, size, 2)]
    if size % 2:
        starts.append(size - 1)
    return [(active[i], active[(i + 1) % size]) for i in starts]


def at_least_one(key: str, number: int) -> None:
    """Refuse a number of repetitions below one, ``key`` its setting."""
    if number < 1:
        raise SettingsError(f"{key} = {number}", "1 or more", f"raise {key}")


def uploads_fit(uploads: int, layers: int) -> None:
    """Refuse fewer uploads than one, or more than there are layers."""
    at_least_one("quantum.uploads", uploads)
    if uploads > layers:
        raise SettingsError(
            f"quantum.uploads = {uploads} with quantum.reps = {layers}",
            "at most as many uploads as layers",
            "lower quantum.uploads or raise quantum.reps",
        )
