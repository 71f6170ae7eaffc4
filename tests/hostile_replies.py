"""What a malicious or broken client may send instead of its honest reply, drawn from a seed."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

ESCAPES = "\x1b[31mred\x1b[0m\r\n\x00\x07\u202eevil\u2066"
NUMBERS: list[Any] = [
    -1, 0, 1, 7, 2**50, 2**63 - 1, -(2**63), 10**9, -0.0, 0.5, 1e308, -1e308, float("nan"),
    float("inf"), float("-inf"), [], [0], [-1, 2], [1.5], [10**9] * 4, [float("nan")],
]  # fmt: skip
VALUES: list[Any] = [*NUMBERS, "", "x", ESCAPES, "x" * 10_000, b"\x00", True, [""], [ESCAPES, "b"]]
NAMES = ["more", "num-examples", "rows", ESCAPES, "x" * 1000]


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return npy bytes with any header at all."""
    text = header.encode("latin-1")
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def claims(shape: str, descr: str = "'<f8'") -> bytes:
    """Return an npy header that claims a shape, without any data."""
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


class Trap:
    """Something that says so when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return (setattr, (Trap, "sprung", True))


BYTES = [
    claims("(10**12,)"),
    claims("(1000000000000,)"),
    claims("(1000000, 1000000)", "'<f4'"),
    claims("(0, 1000000000000)"),
    claims("(-1,)"),
    claims("(True,)"),
    claims("(3,)", "'|O'") + pickle.dumps([Trap()] * 3),
    claims("(3,)", "'<U5'") + b"0" * 60,
    claims("(3,)", "[('a', '<f8')]") + b"0" * 24,
    claims("(3,)", "'>f8'") + b"0" * 24,
    npy("(" * 400),
    npy("{'descr': '<f8'}"),
    npy("nonsense"),
    npy("{}", version=b"\x03\x00"),
    b"\x93NUMPY\x01\x00\xff\xff",
    b"",
    pickle.dumps(Trap()),
]


def sent(data: bytes, stype: str = "numpy.ndarray") -> Array:
    """Return an array of these bytes, as Flower takes it from the network."""
    return Array(dtype="float32", shape=(3,), stype=stype, data=data)


def arrays(like: np.ndarray) -> list[Array]:
    """Return what may stand in the place of an array."""
    odd = [np.nan, np.inf, 1e30, 1e308, -1e308]
    values = [np.full(like.shape, value, np.float64) for value in odd]
    others = [
        like[:-1], like[None], np.zeros(()), np.zeros(0), like.astype(int), like.astype(complex),
        like.astype(str), np.zeros(like.shape, bool), np.asfortranarray(like), -like,
    ]  # fmt: skip
    return [
        *map(sent, BYTES),
        sent(Array(like).data, "torch.Tensor"),
        sent(Array(like).data + b"0"),
        sent(Array(like).data[:-1]),
        *(Array(np.asarray(one)) for one in (*values, *others)),
    ]


def change(rng: random.Random, content: RecordDict) -> str:
    """Spoil an honest reply's content in one place; return what was done."""
    kinds: list[Any] = [ArrayRecord(), MetricRecord({"x": 1}), ConfigRecord({"x": ESCAPES})]
    records = sorted(content)
    if rng.random() < 0.2:
        name = rng.choice([*records, *NAMES])
        if name in content and rng.random() < 0.5:
            del content[name]
            return f"without record {name}"
        content[name] = rng.choice(kinds)
        return f"record {name} is {type(content[name]).__name__}"
    name = rng.choice(records)
    record: Any = content[name]
    key = rng.choice([*sorted(record), *NAMES])
    if key in record and rng.random() < 0.2:
        del record[key]
        return f"{name} without {key}"
    if isinstance(record, ArrayRecord):
        like = record[key if key in record else min(record)].numpy()
        record[key] = rng.choice(arrays(like))
        return f"{name}: {key} is {record[key].data[:40]!r}"
    record[key] = rng.choice(NUMBERS if isinstance(record, MetricRecord) else VALUES)
    return f"{name}: {key} is {record[key]!r}"
