"""What a job of the service tells: its status, its values, its cost; each read with suspicion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from quantum.engines.devices.contract import CANCELLED, DONE, ERROR, Job, Request

_WORDS = {"COMPLETED": DONE, "FAILED": ERROR}


class MalformedError(ValueError):
    """A result that is not what was asked for."""


def status_of(job: Job) -> str:
    """Return a job's status as a word: DONE, ERROR, CANCELLED, or one that is not final."""
    status = job.status()
    word = str(getattr(status, "name", status)).upper()
    if word.startswith("CANCELLED"):  # also "CANCELLED - RAN TOO LONG"
        return CANCELLED
    return _WORDS.get(word, word)


def values_of(result: Any, request: Request) -> list[np.ndarray]:
    """Return the expectations of a finished job.

    Parameters
    ----------
    result : PrimitiveResult
        One result a pub, each with ``.data.evs``.
    request : Request
        What was asked.

    Returns
    -------
    list of np.ndarray
        float64; one of each pub's own shape.

    Raises
    ------
    MalformedError
        If a value is missing, of the wrong shape, or not finite.
    """
    shapes = _shapes(request)
    try:
        values = [np.array(part.data.evs, dtype=np.float64) for part in result]
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedError(f"no expectations in it ({error})") from None
    if len(values) != len(shapes):
        raise MalformedError(f"{len(values)} results for {len(shapes)} circuits")
    for value, shape in zip(values, shapes, strict=True):
        if value.shape != shape:
            raise MalformedError(f"expectations of shape {value.shape} where {shape} was asked")
        if not np.isfinite(value).all():
            raise MalformedError("expectations that are not finite")
    return values


def _shapes(request: Request) -> list[tuple[int, ...]]:
    """Return the shape of each pub: its parameter sets broadcast with its observables."""
    from qiskit.primitives.containers.estimator_pub import EstimatorPub

    return [EstimatorPub.coerce(pub, request.precision).shape for pub in request.pubs]


def qpu_seconds_of(job: Job) -> float | None:
    """Return the QPU seconds billed for a job, or None if the service does not tell (yet)."""
    told = _seconds(job.usage())
    return _seconds(_inner(job.metrics(), "usage", "quantum_seconds")) if told is None else told


def queue_seconds_of(job: Job) -> float:
    """Return the seconds from accepted to running; 0 if the time stamps do not tell."""
    stamps = _inner(job.metrics(), "timestamps")
    created, running = (_moment(_inner(stamps, name)) for name in ("created", "running"))
    if created is None or running is None:
        return 0.0
    return max((running - created).total_seconds(), 0.0)


def _inner(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) and value >= 0 else None


def _moment(value: Any) -> datetime | None:
    """Return a time stamp (ISO 8601 text or datetime; UTC where it names no zone)."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
