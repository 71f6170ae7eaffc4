"""What an aggregation keeps between rounds, as JSON values and arrays; pure.

A server optimiser of Flower's or a user's object keeps moments and the like as attributes. Numbers
and texts go into the checkpoint's JSON, arrays into its safetensors, also those in lists, dicts and
Flower's records. Nothing is pickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from core.messages import Parameters, pack_parameters, unpack_parameters


def pack_state(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], Parameters]:
    """Sort an object's attributes into what JSON holds and what safetensors holds.

    Parameters
    ----------
    attributes : mapping
        Its ``vars``; functions and classes are part of the code, and left out. What only resembles
        a dict, list or tuple is ``unsaved``: it would come back as another type.

    Returns
    -------
    tuple
        ``values``, ``kinds`` of the attributes that hold arrays, and the names of what is
        ``unsaved``; and the arrays by ``attribute`` or ``attribute/name``.
    """
    values: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    arrays: Parameters = {}
    unsaved: list[str] = []
    for name, value in attributes.items():
        parts = _arrays_in(value)
        if value is None or isinstance(value, bool | int | float | str):
            values[name] = value
        elif parts is not None:
            kinds[name] = _kind(value)
            arrays |= {f"{name}/{part}": np.array(array) for part, array in parts.items()}
        elif not (inspect.isroutine(value) or isinstance(value, type | partial)):
            unsaved.append(name)
    return {"values": values, "kinds": kinds, "unsaved": unsaved}, arrays


def _kind(value: Any) -> str:
    if isinstance(value, ArrayRecord):
        return "record"
    return type(value).__name__ if isinstance(value, dict | list | tuple) else "array"


def _arrays_in(value: Any) -> Parameters | None:
    """Return the arrays of a value by name; None if it is made of anything else."""
    if isinstance(value, ArrayRecord):
        return unpack_parameters(value)
    if isinstance(value, np.ndarray | np.generic):
        parts = {"": value}
    elif type(value) is dict and all(isinstance(key, str) for key in value):
        parts = value
    elif type(value) in (list, tuple):
        parts = {f"{place:06d}": one for place, one in enumerate(value)}
    else:
        return None
    numbers = (np.asarray(one).dtype.kind in "biuf" for one in parts.values())
    return {k: np.asarray(one) for k, one in parts.items()} if all(numbers) else None


def unpack_state(facts: Mapping[str, Any], arrays: Parameters) -> dict[str, Any]:
    """Return the attributes that `pack_state` has sorted."""
    found = dict(facts.get("values", {}))
    for name, kind in facts.get("kinds", {}).items():
        parts = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{name}/")}
        scalars = {k: v[()] for k, v in parts.items()}  # of no dimension: a number of numpy's
        if kind == "array":
            found[name] = scalars[""]
        elif kind == "record":
            found[name] = pack_parameters(parts)
        elif kind == "dict":
            found[name] = scalars
        else:
            listed = [scalars[key] for key in sorted(scalars)]
            found[name] = tuple(listed) if kind == "tuple" else listed
    return found
