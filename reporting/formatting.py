"""The report's figures in words, and the sentence on how a run came out; pure."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from core import formatting
from core.formatting import difference_interval, is_number, span, wilson_interval
from reporting.record import Json, Record, number

NONE = "\u2013"
"""An en dash: there is no such figure."""

percent = partial(formatting.percent, none=NONE)
figure = partial(formatting.figure, none=NONE)
whole = partial(formatting.whole, none=NONE)
duration = partial(formatting.duration, none=NONE)
size = partial(formatting.byte_size, none=NONE)


def interval(share: Any, rows: Any) -> str:
    """Write the 95 % interval of a share that was counted in so many rows."""
    return span(wilson_interval(share, rows), none=NONE)


def amount(value: Any) -> str:
    """Write a total: whole numbers whole, others with one decimal."""
    if not is_number(value):
        return NONE
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def text(value: Any) -> str:
    """Write a text, or a dash for none."""
    return str(value or NONE)


def setting_value(value: Any) -> str:
    """Write the value of a setting, or a dash for none."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def capital(words: str) -> str:
    """Begin a text with a capital letter."""
    return words[:1].upper() + words[1:]


def short(value: float) -> str:
    """Write a large number shortly: 1.2 M, 35 k, 800."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.3g}"


def status(record: Record) -> str:
    """Return ``completed``, ``failed``, or ``unfinished`` where the run left no status."""
    return str(record.summary.get("status") or record.end.get("status") or "unfinished")


def error(record: Record) -> str:
    """Return what went wrong; empty if nothing did."""
    return str(record.summary.get("error") or record.end.get("error") or "").rstrip(". \n")


def outcome(record: Record) -> str:
    """Say in one to three sentences how the run came out."""
    rounds = len(record.round_ids)
    done = f"{rounds} round{'s' * (rounds != 1)}"
    if status(record) == "failed":
        return f"The run failed after {done}: {error(record) or 'no reason was recorded'}."
    if status(record) != "completed":
        return (
            f"The run did not come to its end: {done} are on record, and no final test. "
            "What follows is as far as it got."
        )
    test: Json = record.summary.get("test") or {}
    if not is_number(test.get("accuracy")):
        return f"The run completed after {done}, without a final test."
    return _test_result(test, record.summary.get("baselines") or {})


def _test_result(test: Json, baselines: Json) -> str:
    """Compare the test accuracy with the baselines."""
    accuracy, rows = test["accuracy"], test.get("rows")
    sure = interval(accuracy, rows)
    first = f"The quantum model is right on {percent(accuracy)} of {whole(rows)} held-out test rows"
    first += f" (95 % interval {sure})" if sure != NONE else ""
    named = (
        ("majority", "always saying the majority class"),
        ("logistic_projected", "a logistic regression on the same features"),
    )
    compared = [_compared(accuracy, _accuracy(baselines, key), name, rows) for key, name in named]
    sentence = first + ": " * any(compared) + " and ".join(filter(None, compared)) + "."
    full = _accuracy(baselines, "logistic_full")
    if math.isnan(full):
        return sentence
    return (
        f"{sentence} With all features, before they are reduced to the qubits, a logistic "
        f"regression is right on {percent(full)}."
    )


def _accuracy(baselines: Json, key: str) -> float:
    return number((baselines.get(key) or {}).get("accuracy"))


def _compared(accuracy: float, other: float, name: str, rows: Any) -> str:
    """Compare with a baseline; a difference that chance may have made is no difference."""
    if math.isnan(other):
        return ""
    points = 100 * (accuracy - other)
    if abs(points) < 0.05:
        return f"the same as {name}"
    sentence = f"{abs(points):.1f} points {'above' if points > 0 else 'below'} {name}"
    ends = difference_interval(accuracy, other, rows)
    chance = ends is not None and ends[0] <= 0 <= ends[1]
    return f"{sentence}, which so few rows cannot tell from chance" if chance else sentence
