"""The messages of secure aggregation: keys once a run, moments, and one more question a round.

A masked update travels in the training reply, as one array of bytes where its parameters were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from pydantic import Field
from pydantic.dataclasses import dataclass

from core.messages import (
    ABOUT,
    ARRAYS,
    STRICT,
    UNSET,
    Parameters,
    TrainIns,
    TrainReport,
    pack_parameters,
    pack_report,
)

KEYS, MOMENTS, UNMASK = "query.keys", "query.moments", "query.unmask"

MOMENTS_ROUND = 0
"""The round of the moments, which has keys of its own."""

KEYS_CODE = 1003
"""Code of a reply of a client that has no keys for the round: it was restarted."""

MOST_KEYS = 100
"""Rounds that keys are requested for at once: 64 bytes each stay in Flower's state."""

MASKED, ANSWER = "masked", "answer"

OWN_FIELDS = ("steps", "step_offset", "fine_tuned", "group", "log")
"""Fields of an instruction in which the members of a group differ."""

Round = Annotated[int, Field(ge=0, le=2**31)]


def work_digest(parameters: Parameters, instruction: TrainIns) -> bytes:
    """Return SHA-256 over the model and what else all members of a group train with."""
    shared = {k: v for k, v in asdict(instruction).items() if k not in OWN_FIELDS}
    shared["projection"] = instruction.projection.hex()
    found = hashlib.sha256(json.dumps(shared, sort_keys=True).encode())
    for name in sorted(parameters):
        array = np.ascontiguousarray(parameters[name])
        found.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return found.digest()


@dataclass(frozen=True, config=STRICT)
class KeysIns:
    """Requests public keys for the rounds ``first`` to ``last`` of a run."""

    run: str
    first: Round
    last: Round


@dataclass(frozen=True, config=STRICT)
class MomentsIns:
    """Requests the moments of a site's features, masked.

    Attributes
    ----------
    run : str
        As in `TrainIns`.
    kinds : list of str
        Of which features, the first candidate first.
    group : bytes
        Whose moments are summed with these, and what each weighs (`core.secagg.Group`).
    log : str
        As in `TrainIns`.
    """

    run: str
    kinds: list[str]
    group: bytes
    log: str = UNSET


def moments_digest(kinds: Sequence[str]) -> bytes:
    """Return SHA-256 over what all members of a group send moments of."""
    return hashlib.sha256(json.dumps(["moments", *kinds]).encode()).digest()


@dataclass(frozen=True, config=STRICT)
class UnmaskIns:
    """Requests what takes a group's masks off.

    Attributes
    ----------
    run : str
        As in `TrainIns`.
    round : int
        The round.
    survivors : list of int
        Members whose masked updates the server has.
    senders : list of int
        Those of them whose shares come with this message.
    shares : list of bytes
        Their shares, encrypted for this member, in that order.
    """

    run: str
    round: Round
    survivors: list[int]
    senders: list[int]
    shares: list[bytes]


def pack_answer(data: bytes) -> RecordDict:
    """Pack the answer to KEYS or UNMASK."""
    return RecordDict({ABOUT: ConfigRecord({ANSWER: data})})


def pack_masked(report: TrainReport, data: bytes) -> RecordDict:
    """Pack a training reply whose update is masked."""
    return pack_report(report, {MASKED: np.frombuffer(data, np.uint8)})


def pack_masked_moments(data: bytes) -> RecordDict:
    """Pack the answer to MOMENTS."""
    return RecordDict({ARRAYS: pack_parameters({MASKED: np.frombuffer(data, np.uint8)})})
