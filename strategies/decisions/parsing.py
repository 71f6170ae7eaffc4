"""The one place that turns a language model's answer into a decision, or refuses it; pure.

What can be understood is repaired, with a note; what cannot is refused, with one line that the
model can be shown. The run's limits (bounds of steps, budgets, early stops) are the guard's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from core.formatting import listed, printable
from strategies.decisions import Decision, Observation
from strategies.decisions.shown import OTHERS, hidden_clients

KEYS = ("reason", "participants", "steps", "stop")
"""Keys of an answer: those of the prompt, and a list of participants if a model adds it."""

LONGEST_ANSWER, LONGEST_EACH = 20_000, 24
"""Characters of an answer that are still read, or so many a client; a decision takes some
hundreds."""

MOST_NOTES = 20
LARGEST = 10**6
"""No number of steps or client is larger."""

_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_BEGINS_THOUGHT = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_FENCE = "` \t\r\n"
_CLIENT = re.compile(r"\s*(?:client\s*)?(\d{1,6})\s*", re.IGNORECASE)
_LOOKS_LIKE_JSON = re.compile(r'\{\s*"')
_STOPS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


@dataclass(frozen=True)
class ParsedDecision:
    """What became of an answer.

    Attributes
    ----------
    decision : Decision or None
        What it means; None if it is refused.
    problem : str
        Why it is refused, in one line; empty if it is not.
    notes : tuple of str
        What was repaired.
    """

    decision: Decision | None
    problem: str = ""
    notes: tuple[str, ...] = ()


class _RefusedError(ValueError):
    """An answer that means nothing; the message is the problem."""


def parse_answer(text: str, seen: Observation, truncated: bool = False) -> ParsedDecision:
    """Turn an answer into a decision.

    Parameters
    ----------
    text : str
        The model's answer, of any form.
    seen : Observation
        What the model was shown; names the clients.
    truncated : bool
        Whether its limit of tokens cut it off.

    Returns
    -------
    ParsedDecision
        A decision of known, distinct clients with a whole number of steps each; or a problem.
    """
    notes: list[str] = []
    decision, problem = None, ""
    try:
        longest = max(LONGEST_ANSWER, LONGEST_EACH * len(seen.clients))
        decision = _decision(_only_object(text, notes, truncated, longest), seen, notes)
    except _RefusedError as refused:
        problem = printable(str(refused))
    except RecursionError:
        problem = "the answer's JSON is nested too deeply"
    return ParsedDecision(decision, problem, tuple(dict.fromkeys(notes))[:MOST_NOTES])


# --- from text to an object ---------------------------------------------------------------


def _only_object(text: str, notes: list[str], truncated: bool, longest: int) -> dict[str, Any]:
    """Find the one JSON object of an answer."""
    answer = _without_thoughts(text, notes, longest)
    cut = " because the limit of tokens cut it off: answer shorter" if truncated else ""
    objects, around = list(_objects(answer, notes)), answer
    for _, source in objects:
        around = around.replace(source, "", 1)
    if _BEGINS_THOUGHT.search(around):  # a draft in it is no decision
        raise _RefusedError(f"the answer's thoughts have no end{cut}")
    if any(value is None for value, _ in objects):
        raise _RefusedError(f"the answer's JSON is broken or not complete{cut}")
    found = [(value, source) for value, source in objects if set(value or ()) & set(KEYS)]
    if not found:
        raise _RefusedError(f'the answer holds no JSON object with "steps" and "stop"{cut}')
    if any(value != found[0][0] for value, _ in found):
        raise _RefusedError(f"the answer holds {len(found)} different JSON objects instead of one")
    value, source = found[-1]
    if truncated and not answer.rstrip(_FENCE).endswith(source):
        raise _RefusedError(f"the answer goes on after its JSON object and has no end{cut}")
    if len(found) > 1:
        notes.append("the same object said more than once")
    elif source != answer:
        notes.append("text round the JSON dropped")
    return value or {}


def _without_thoughts(text: str, notes: list[str], longest: int) -> str:
    answer = _THOUGHT.sub("", text).strip()
    if len(answer) != len(text.strip()):
        notes.append("thoughts before the answer dropped")
    if not answer:
        raise _RefusedError("the answer is empty")
    if len(answer) > longest:
        raise _RefusedError(f"the answer has over {longest:,} characters: answer shorter")
    return answer


def _objects(text: str, notes: list[str]) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yield each outermost JSON object with its source; None for one that does not parse."""

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in items:
            if key in made and made[key] != value:
                raise _RefusedError(f'"{key}" is said twice and differently')
            if key in made:
                notes.append(f'"{printable(key, 40)}" is said twice')
            made[key] = value
        return made

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_no_number)
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            yield value, text[at:end]
        except _RefusedError:
            raise
        except (ValueError, RecursionError):
            if _LOOKS_LIKE_JSON.match(text, at):
                yield None, ""
                return
            end = at + 1
        at = text.find("{", end)


def _no_number(name: str) -> None:
    raise _RefusedError(f"{name} is not a number of steps")


# --- from the object to a decision --------------------------------------------------------


def _decision(answer: dict[str, Any], seen: Observation, notes: list[str]) -> Decision:
    if extra := sorted(set(answer) - set(KEYS)):
        notes.append(printable(f"extra keys dropped: {', '.join(extra)}", 120))
    stop = _stop(answer.get("stop", False), notes)
    reason = answer.get("reason", "")
    if not isinstance(reason, str):
        notes.append("reason is not text: dropped")
        reason = ""
    try:
        before = {view.client: view.steps for view in seen.clients}
        steps = _steps(answer, before, hidden_clients(seen), notes)
    except _RefusedError:
        if not stop:
            raise
        steps = {}
    if not steps and not stop:
        raise _RefusedError("nobody is chosen and stop is false: give a client steps, or stop")
    return Decision(participants=tuple(steps), steps=steps, stop=stop, reason=printable(reason))


def _stop(value: Any, notes: list[str]) -> bool:
    if isinstance(value, bool):
        return value
    known = _STOPS.get(str(value).strip().lower()) if isinstance(value, int | str) else None
    if known is None:
        raise _RefusedError(f"stop is {_shown(value)} instead of true or false")
    notes.append(f"stop {_shown(value)} read as {str(known).lower()}")
    return known


def _steps(
    answer: dict[str, Any], before: dict[int, int], hidden: frozenset[int], notes: list[str]
) -> dict[int, int]:
    """Return each participant's steps, in order of the clients; `before`: what they had last.

    The clients in `hidden` have the steps of `OTHERS`, unless the answer names them.
    """
    # Steps are an object by client, a list of objects of client and steps, or one number;
    # participants, if there are any, a list of clients or of such objects.
    steps, participants = answer.get("steps"), answer.get("participants")
    given = {}
    if isinstance(steps, dict | list):
        each = [pair for pair in _pairs(steps) if hidden and _is_others(pair[0])]
        given = _by_client([one for one in _pairs(steps) if one not in each], before, notes)
        count = _whole(each[-1][1], f"steps of {OTHERS}", notes) if each else 0
        given |= dict.fromkeys(hidden - given.keys(), count)
    elif steps is not None:
        steps = _whole(steps, "steps", notes)
        if participants is None:
            raise _RefusedError("steps is one number: give each client its own")
    if participants is not None:
        return _steps_of(participants, given, steps, before, notes)
    absent = before.keys() - given.keys()
    if absent and given:
        notes.append(f"no steps said of clients {listed(absent)}: they sit out")
    return {k: given[k] for k in sorted(given) if given[k] > 0}


def _steps_of(
    participants: Any,
    given: dict[int, int],
    each: Any,
    before: dict[int, int],
    notes: list[str],
) -> dict[int, int]:
    """Return the participants' steps: those given by client, one number for each, or as before."""
    if not isinstance(participants, list):
        raise _RefusedError(f"participants is {_shown(participants)} instead of a list of clients")
    if participants and all(isinstance(item, dict) for item in participants):
        chosen = _by_client(_pairs(participants), before, notes)
        given = given | chosen
    else:
        chosen = _by_client([(item, 0) for item in participants], before, notes)
    if isinstance(each, int):
        notes.append(f"{each} steps read as each participant's")
        given = dict.fromkeys(chosen, each)
    if idle := [k for k, m in given.items() if m > 0 and k not in chosen]:
        notes.append(f"steps of clients that do not train dropped: {listed(idle)}")
    steps = {k: given.get(k, before[k]) for k in sorted(chosen)}
    for k, count in steps.items():
        if k not in given:
            notes.append(f"client {k}: no steps said, {count} as before")
        elif count <= 0:
            notes.append(f"client {k}: {count} steps, so it sits out")
    return {k: count for k, count in steps.items() if count > 0}


def _is_others(who: Any) -> bool:
    return isinstance(who, str) and who.strip().lower() == OTHERS


def _pairs(value: dict[str, Any] | list[Any]) -> list[tuple[Any, Any]]:
    """Return clients with their steps, from an object or from a list of objects."""
    if isinstance(value, dict):
        return list(value.items())
    for item in value:
        if not isinstance(item, dict) or "client" not in item or "steps" not in item:
            raise _RefusedError(f'{_shown(item)} instead of {{"client": ..., "steps": ...}}')
    return [(item["client"], item["steps"]) for item in value]


def _by_client(
    pairs: list[tuple[Any, Any]], known: dict[int, int], notes: list[str]
) -> dict[int, int]:
    """Read pairs of client and steps; the unknown and the repeated are dropped with a note."""
    found: dict[int, int] = {}
    for who, value in pairs:
        client = _client(who)
        if client is None or client not in known:
            notes.append(f"unknown client {_shown(who)} dropped")
        elif client in found:
            notes.append(f"repeated client {client} dropped")
        else:
            found[client] = _whole(value, f"steps of client {client}", notes)
    return found


def _client(who: Any) -> int | None:
    """Read a client's number, or None for what is none."""
    if isinstance(who, bool | list | dict | None):
        raise _RefusedError(f"{_shown(who)} instead of a client's number")
    if isinstance(who, str):
        match = _CLIENT.fullmatch(who)
        return int(match[1]) if match else None
    # Compared before anything else: an integer of JSON may be too large for a float.
    return int(who) if 0 <= who <= LARGEST and who == int(who) else None


def _whole(value: Any, what: str, notes: list[str]) -> int:
    """Read a whole number; text and fractions are repaired with a note."""
    number: float = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError):
            number = float(value) if isinstance(value, str) else value
    if not -LARGEST <= number <= LARGEST:  # neither is NaN nor an infinity
        raise _RefusedError(f"{what}: {_shown(value)} is not a number of steps")
    if not isinstance(value, int):
        notes.append(f"{what}: {_shown(value)} read as {round(number)}")
    if number < 0:
        notes.append(f"{what}: {round(number)} is below 0")
    return round(number)


def _shown(value: Any) -> str:
    """Write a value as JSON, short."""
    return printable(json.dumps(value, default=str), 40)
