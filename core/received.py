"""Reading of what clients send, in one place: exact records, keys, types, sizes and bounds.

`checked_reply` turns whatever goes wrong with one reply into one line. Nothing of a client but what
was read here reaches an aggregator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flwr.app import Message, RecordDict
from pydantic import ValidationError

from core.array_decoding import Parameters, Shapes, decode_arrays
from core.formatting import printable
from core.messages import (
    ABOUT,
    ARRAYS,
    METRICS,
    WEIGHT_KEY,
    EvaluateReport,
    SiteReport,
    first_problem,
)

T = TypeVar("T")


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
    names = {METRICS} if kind is EvaluateReport else {METRICS, ARRAYS}
    _only(message.content, names)
    values: dict[str, Any] = dict(message.content.metric_records[METRICS])
    del values[WEIGHT_KEY]  # the server decides what an answer weighs
    return kind(**values)


def read_arrays(message: Message, shapes: Shapes | None = None) -> Parameters:
    """Unpack the arrays of an answer, see `decode_arrays`."""
    return decode_arrays(message.content.array_records[ARRAYS], shapes)


def read_site_report(message: Message) -> tuple[SiteReport, Parameters]:
    """Unpack a client's answer to PREPARE; raises as `read_report`."""
    _only(message.content, {ABOUT, ARRAYS})
    about = SiteReport(**_values(message))
    return about, read_moments(message, about)


def read_moments(message: Message, about: SiteReport) -> Parameters:
    """Unpack the feature moments of an answer: ``count`` (C,), ``sums`` (C, d), ``second`` (d, d).

    Raises
    ------
    ValueError
        If names or shapes are others, or the rows of a class are not those of the report.
    """
    classes = len(about.classes)
    features = tuple(message.content.array_records[ARRAYS]["second"].shape)[:1]
    shapes = {"count": (classes,), "sums": (classes, *features), "second": features * 2}
    arrays = read_arrays(message, shapes)
    counted = [int(n) if n == int(n) else n for n in arrays["count"].tolist()]
    pairs = zip(counted, about.class_rows, strict=False)
    fits = len(counted) == len(about.class_rows) and all(n in (0, held) for n, held in pairs)
    if not fits:  # those of a class with few rows are withheld
        raise ValueError(f"moments of {counted} rows instead of {about.class_rows}")
    return arrays


def read_rejoin(message: Message) -> SiteReport:
    """Unpack a client's answer to REJOIN; raises as `read_report`."""
    _only(message.content, {ABOUT})
    return SiteReport(**_values(message))


def _values(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records[ABOUT])


def _only(content: RecordDict, names: set[str]) -> None:
    if set(content) != names:
        raise ValueError(f"records {sorted(content)[:20]} instead of {sorted(names)}")
