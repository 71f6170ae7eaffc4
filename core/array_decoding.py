"""Arrays out of messages: their headers are checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

Parameters = dict[str, npt.NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...] | None]
"""Shape of each expected array by its name; None: any."""

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
LARGEST = float(np.finfo(np.float32).max)
"""Largest absolute value: its square, and sums of such, are finite in double precision."""

LONGEST_HEADER = 1024
"""Bytes of an npy header; one of a float array has about 120."""

MOST_ARRAYS, MOST_DIMENSIONS = 10_000, 8


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
