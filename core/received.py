"""Reading of what clients send, in one place: exact records, keys, types, sizes and bounds.

Headers of arrays are checked before anything is allocated. `checked_reply` turns whatever goes
wrong with one reply into one line. Nothing of a client but what was read here reaches an
aggregator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Message, RecordDict
from pydantic import ValidationError

from core.formatting import printable
from core.messages import (
    ABOUT,
    ARRAYS,
    METRICS,
    WEIGHT_KEY,
    EvaluateReport,
    Parameters,
    ProbeReport,
    SiteReport,
    first_problem,
)
from core.secure_messages import ANSWER, MASKED

T = TypeVar("T")

Shapes = Mapping[str, tuple[int, ...] | None]
"""Shape of each expected array by its name; None: any."""

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
LARGEST = float(np.finfo(np.float32).max)
"""Largest absolute value: its square, and sums of such, are finite in double precision."""

LONGEST_HEADER = 1024
"""Bytes of an npy header; one of a float array has about 120."""

MOST_ARRAYS, MOST_DIMENSIONS = 10_000, 8


class ReplyError(ValueError):
    """What is wrong with one client's reply, in one printable line."""


@contextmanager
def checked_reply() -> Iterator[None]:
    """Turn whatever goes wrong with one reply into a `ReplyError`; nothing of it ends a run.

    Decoding an untrusted message may also run out of memory or of stack.
    """
    try:
        yield
    except ValidationError as error:
        raise ReplyError(first_problem(error)) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ReplyError(printable(error) or type(error).__name__) from None
    except Exception as error:
        raise ReplyError(printable(f"malformed reply: {error!r}")) from None


def read_report(message: Message, kind: type[T]) -> T:
    """Unpack the numbers of an answer.

    Raises
    ------
    ValueError
        If records, keys, types or bounds are other than those of the kind.
    """
    names = {METRICS} if kind in (EvaluateReport, ProbeReport) else {METRICS, ARRAYS}
    _only(message.content, names)
    values: dict[str, Any] = dict(message.content.metric_records[METRICS])
    del values[WEIGHT_KEY]  # the server decides what an answer weighs
    return kind(**values)


def read_arrays(message: Message, shapes: Shapes | None = None) -> Parameters:
    """Unpack the arrays of an answer, see `decode_arrays`."""
    return decode_arrays(message.content.array_records[ARRAYS], shapes)


def read_site_report(message: Message) -> tuple[SiteReport, Parameters]:
    """Unpack a client's answer to PREPARE; raises as `read_report`."""
    if set(message.content) == {ABOUT}:
        raise ValueError(
            "it has no moments: that node sets privacy.secure_aggregation = true, the run does not"
        )
    _only(message.content, {ABOUT, ARRAYS})
    about = SiteReport(**_values(message))
    return about, read_moments(message, about)


def read_moments(message: Message, about: SiteReport) -> Parameters:
    """Unpack the feature moments of an answer: ``count`` (C,), ``sums`` (C, d), ``second`` (d, d).

    Where the run chooses its features, ``<kind>.sums`` and ``<kind>.second`` are those of the other
    candidates.

    Raises
    ------
    ValueError
        If names or shapes are others, or the rows of a class are not those of the report.
    """
    classes = len(about.classes)
    record = message.content.array_records[ARRAYS]
    shapes: dict[str, tuple[int, ...]] = {"count": (classes,)}
    for prefix in ("", *(n.removesuffix("second") for n in record if n.endswith(".second"))):
        features = tuple(record[f"{prefix}second"].shape)[:1]
        shapes |= {f"{prefix}sums": (classes, *features), f"{prefix}second": features * 2}
    arrays = read_arrays(message, shapes)
    counted = [int(n) if n == int(n) else n for n in arrays["count"].tolist()]
    pairs = zip(counted, about.class_rows, strict=False)
    fits = len(counted) == len(about.class_rows) and all(n in (0, held) for n, held in pairs)
    if not fits:  # those of a class with few rows are withheld
        raise ValueError(f"moments of {counted} rows instead of {about.class_rows}")
    return arrays


def read_report_alone(message: Message) -> SiteReport:
    """Unpack a client's answer to REJOIN, or to PREPARE where its moments are masked.

    Raises as `read_report`.
    """
    _only(message.content, {ABOUT})
    return SiteReport(**_values(message))


def read_masked(message: Message, most: int, *, alone: bool = False) -> bytes:
    """Take what is masked out of a reply: one array of at most so many bytes.

    Parameters
    ----------
    message : Message
        A training reply, or the answer to MOMENTS, in which it is ``alone``.
    most : int
        Bytes.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    record = message.content.array_records[ARRAYS]
    if alone:
        _only(message.content, {ARRAYS})
    if set(record) != {MASKED}:
        raise ValueError(f"arrays {sorted(record)[:20]} instead of ['{MASKED}']")
    array = record[MASKED]
    if array.stype != "numpy.ndarray":
        raise ValueError(f"{MASKED} is serialised as {array.stype!r} instead of 'numpy.ndarray'")
    shape, _, dtype, start = _header(array.data)
    data = array.data[start:]
    if dtype != np.uint8 or shape != (len(data),):
        raise ValueError(f"{MASKED} is {len(data)} bytes of {dtype} {shape} instead of bytes")
    return _at_most(data, most)


def read_answer(message: Message, most: int) -> bytes:
    """Take the answer to KEYS or UNMASK, of at most so many bytes; raises as `read_masked`."""
    _only(message.content, {ABOUT})
    values = _values(message)
    if set(values) != {ANSWER} or not isinstance(values[ANSWER], bytes):
        raise ValueError(f"fields {sorted(values)[:20]} instead of bytes as '{ANSWER}'")
    return _at_most(values[ANSWER], most)


def _at_most(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ValueError(f"{len(data)} bytes, of at most {most}")
    return data


def _values(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records[ABOUT])


def _only(content: RecordDict, names: set[str]) -> None:
    if set(content) != names:
        raise ValueError(f"records {sorted(content)[:20]} instead of {sorted(names)}")


def decode_arrays(record: ArrayRecord, shapes: Shapes | None = None) -> Parameters:
    """Take named arrays of finite floats out of Flower's record.

    Parameters
    ----------
    shapes : mapping, optional
        The names that it must have, with their shapes. None: any.

    Returns
    -------
    dict of arrays
        Copies that may be written, in sorted order of their names.

    Raises
    ------
    ValueError
        If the names, a shape, a data type or a number is another than is accepted.
    """
    if shapes is not None and set(record) != set(shapes):
        raise ValueError(f"arrays {sorted(record)[:20]} instead of {sorted(shapes)}")
    if len(record) > MOST_ARRAYS:
        raise ValueError(f"{len(record)} arrays, of at most {MOST_ARRAYS}")
    wanted = shapes or {}
    return {name: decode_array(name, record[name], wanted.get(name)) for name in sorted(record)}


def decode_array(name: str, array: Array, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    """Decode one array; nothing is unpickled, and a false header makes nothing be allocated.

    Parameters
    ----------
    name : str
        For the error.
    array : Array
        What a client sent: npy bytes.
    shape : tuple of int, optional
        The only shape that is accepted.

    Raises
    ------
    ValueError
        If it is no array of finite floats in that shape.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"{name} is serialised as {array.stype!r} instead of 'numpy.ndarray'")
    found, fortran, dtype, start = _header(array.data)
    if shape is not None and found != shape:
        raise ValueError(f"{name} has shape {found} instead of {shape}")
    if dtype not in FLOATS:
        raise ValueError(f"{name} has dtype {dtype} instead of a float")
    if len(found) > MOST_DIMENSIONS or any(size < 0 for size in found):
        raise ValueError(f"{name} has shape {found}")
    sent, declared = len(array.data) - start, math.prod(found) * dtype.itemsize
    if sent != declared:
        raise ValueError(f"{name} has {sent} bytes instead of {declared}")
    flat = np.frombuffer(array.data, dtype, offset=start)
    with np.errstate(all="ignore"):
        fine = np.abs(flat, dtype=np.float64) <= LARGEST  # false for what is no number too
    if not fine.all():
        raise ValueError(f"{name} is {'too large' if np.isfinite(flat).all() else 'not finite'}")
    return flat.reshape(found, order="F" if fortran else "C").copy()


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read an npy header: shape, whether in Fortran order, data type, and where the data begin."""
    file = BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version}")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)
    return shape, fortran, dtype, file.tell()
