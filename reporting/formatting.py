"""The report's sentences and figures in words; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import core
from core import BASELINES, difference_interval, is_number, wilson_interval
from reporting.record import Json, Record, number

NONE = "\u2013"
"""An en dash: there is no such figure."""

percent = partial(core.percent, none=NONE)
figure = partial(core.figure, none=NONE)
whole = partial(core.whole, none=NONE)
duration = partial(core.duration, none=NONE)
size = partial(core.byte_size, none=NONE)


def interval(share: Any, rows: Any) -> str:
    """Write the 95 % interval of a share that was counted in so many rows."""
    found = wilson_interval(share, rows)
    return NONE if found is None else f"{percent(found[0])} to {percent(found[1])}"


def amount(value: Any) -> str:
    """Write a total: whole numbers whole, others with one decimal."""
    if not is_number(value):
        return NONE
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def status(record: Record) -> str:
    """Return ``completed``, ``failed``, or ``unfinished`` where the run left no word."""
    return str(record.summary.get("status") or record.end.get("status") or "unfinished")


def judged(record: Record) -> str:
    """Say on what backend the global model was judged, and what that cost the server."""
    judge: Json = record.summary.get("judge") or {}
    said = str(judge.get("backend") or NONE)
    if not judge.get("jobs"):
        return said
    cost = f"{amount(judge.get('jobs'))} jobs, {amount(judge.get('circuits'))} circuits"
    return f"{said}, by the server: {cost}, {amount(judge.get('shots'))} shots"


def error(record: Record) -> str:
    """Return what went wrong; empty if nothing did."""
    return str(record.summary.get("error") or record.end.get("error") or "").rstrip(". \n")


def verdict(record: Record) -> str:
    """Say in plain words how the run came out.

    Parameters
    ----------
    record : Record
        The run.

    Returns
    -------
    str
        One to three sentences.
    """
    rounds = len(record.round_ids)
    done = f"{rounds} round{'s' * (rounds != 1)}"
    state = status(record)
    if state == "failed":
        return f"The run failed after {done}: {error(record) or 'no reason was recorded'}."
    if state != "completed":
        return (
            f"The run did not come to its end: {done} are on record, and no final test. "
            "What follows is as far as it got."
        )
    test: Json = record.summary.get("test") or {}
    accuracy = number(test.get("accuracy"))
    if math.isnan(accuracy):
        return f"The run completed after {done}, without a final test."
    rows = whole(test.get("rows"))
    sure = interval(accuracy, test.get("rows"))
    first = f"The quantum model is right on {percent(accuracy)} of {rows} held-out test rows"
    first += f" (95 % interval {sure})" if sure != NONE else ""
    baselines: Json = record.summary.get("baselines") or {}
    compared = [
        part
        for key, name in (
            ("majority", "always saying the majority class"),
            ("logistic_projected", "a logistic regression on the same features"),
        )
        if (part := _compared(accuracy, baselines.get(key), name, test.get("rows")))
    ]
    sentence = first + (": " + " and ".join(compared) if compared else "") + "."
    return sentence + _against_full(accuracy, baselines.get("logistic_full"))


def _compared(accuracy: float, baseline: Any, name: str, rows: Any) -> str:
    """Compare with a baseline; a difference that chance may have made is no difference."""
    other = number((baseline or {}).get("accuracy"))
    if math.isnan(other):
        return ""
    points = 100 * (accuracy - other)
    if abs(points) < 0.05:
        return f"the same as {name}"
    said = f"{abs(points):.1f} points {'above' if points > 0 else 'below'} {name}"
    span = difference_interval(accuracy, other, rows)
    chance = span is not None and span[0] <= 0 <= span[1]
    return f"{said}, which so few rows cannot tell from chance" if chance else said


def _against_full(accuracy: float, baseline: Any) -> str:
    other = number((baseline or {}).get("accuracy"))
    if math.isnan(other):
        return ""
    return (
        f" With all features, before they are reduced to the qubits, a logistic regression "
        f"is right on {percent(other)}."
    )


def capital(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]


def unseen_scores(test: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the score on test rows that were not trained on, where some were."""
    found = test.get("unseen")
    if not isinstance(found, Mapping):
        return []
    return [(f"The same, {whole(found.get('rows'))} rows not among the training rows", found)]


def score_rows(record: Record) -> list[list[str]]:
    """Return the table of test scores: the quantum model first, then the baselines."""
    summary = record.summary
    best = summary.get("best_round")
    model = f"Quantum model, round {best}" if best else "Quantum model"
    baselines: Mapping[str, Any] = summary.get("baselines") or {}
    test = summary.get("test") or {}
    rows = [(model, test), *unseen_scores(test)]
    rows += [(capital(name), baselines[key]) for key, name in BASELINES if baselines.get(key)]
    return [
        [
            name,
            percent(scores.get("accuracy")),
            interval(scores.get("accuracy"), scores.get("rows", test.get("rows"))),
            figure(scores.get("macro_f1")),
            figure(scores.get("macro_recall")),
            figure(scores.get("loss")),
        ]
        for name, scores in rows
    ]
