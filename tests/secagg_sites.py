"""Sites that aggregate securely, for tests: keys, groups, and a whole round with losses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from core.secagg import (
    Answer,
    Group,
    GroupSum,
    Held,
    Identity,
    KeyTable,
    Masked,
    Member,
    RoundPrivate,
    answer,
    ciphertexts_for,
    make_group,
    make_table,
    mask,
    new_identity,
    read_answer,
    read_masked,
    unmask,
)
from core.secagg.keys import SignedKeys

RUN = "run-1"
ROUNDS = (1, 2)


@lru_cache(maxsize=128)
def site(client: int) -> tuple[Identity, dict[int, RoundPrivate], KeyTable]:
    """Return a client's identity and keys; signing for a hundred of them once is enough."""
    identity = new_identity()
    return (identity, *make_table(identity, RUN, client, ROUNDS))


def group_of(
    clients: Iterable[int], threshold: int, number: int = 1, weights: Mapping[int, float] = {}
) -> Group:
    tables = {client: site(client)[2] for client in clients}
    return make_group(RUN, number, threshold, tables, {c: weights.get(c, 1.0) for c in tables})


def drawn_group(count: int, threshold: int, seed: int) -> tuple[Group, dict[int, RoundPrivate]]:
    """Return a group all of whose secrets come from a seed; its signatures are none."""
    rng = np.random.default_rng(seed)
    privates = {c: RoundPrivate(rng.bytes(32), rng.bytes(32)) for c in range(count)}
    members = (
        Member(c, rng.bytes(49), SignedKeys(*privates[c].public, bytes(96)), 1.0) for c in privates
    )
    return Group(RUN, 1, threshold, tuple(members)), privates


def drawing(seed: int) -> dict[str, Callable[[int], Any]]:
    """Return the random arguments of `mask`, drawn from a seed."""
    rng = np.random.default_rng(seed)

    def below(limit: int) -> int:
        return int.from_bytes(rng.bytes(32), "big") % limit

    return {"draw": rng.bytes, "below": below}


@dataclass
class Round:
    """What a server and its sites hold in one round."""

    group: Group
    vectors: Mapping[int, npt.NDArray[np.float64]]
    masked: dict[int, Masked] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)

    def mask(self, silent: Collection[int] = ()) -> Round:
        """Every member that is not silent sends its masked vector."""
        for client in set(self.group.clients) - set(silent):
            private = site(client)[1][self.group.round]
            masked, held = mask(private, client, self.group, self.vectors[client])
            length = len(self.vectors[client])
            self.masked[client] = read_masked(masked.to_bytes(), self.group, client, length)
            self.held[client] = Held.from_bytes(held.to_bytes())
        return self

    def answer(self, silent: Collection[int] = ()) -> Round:
        """Every survivor that is not silent gives its shares."""
        survivors = sorted(self.masked)
        for client in set(survivors) - set(silent):
            shares = ciphertexts_for(client, self.group, self.masked)
            made = answer(self.held[client], survivors, shares).to_bytes()
            self.answers[client] = read_answer(made, self.group, client, survivors)
        return self

    def open(self) -> GroupSum:
        return unmask(self.group, self.masked, self.answers)


def vectors_of(
    clients: Iterable[int], length: int = 5, seed: int = 0
) -> dict[int, npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return {client: rng.normal(scale=10.0, size=length) for client in clients}


def fixed_sum(
    vectors: Mapping[int, npt.NDArray[np.float64]], members: Iterable[int]
) -> npt.NDArray[np.float64]:
    """Return the sum of numbers that were rounded to 2^-32 one by one, in plain integers."""
    rows = [[round(float(x) * 2**32) for x in vectors[client]] for client in members]
    return np.array([sum(column) / 2**32 for column in zip(*rows, strict=True)])
