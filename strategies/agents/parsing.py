"""The one place that turns what a language model said into a decision, or refuses it; pure.

What can be understood is repaired, with a note; what cannot is refused, with one line that can be
told back to the model. The run's limits (bounds of steps, budgets, early stops) are the guard's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.formatting import printable
from strategies.agents import Decision, Observation

KEYS = ("reason", "participants", "steps", "stop")
"""Keys of an answer: those of the prompt, and a list of participants if a model adds it."""

LONGEST_ANSWER = 20_000
"""Characters of an answer that are still read; a decision takes some hundreds."""

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
class Reading:
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


def read_answer(text: str, seen: Observation, truncated: bool = False) -> Reading:
    """Read an answer.

    Parameters
    ----------
    text : str
        What the model said, of any form.
    seen : Observation
        What it was told; names the clients.
    truncated : bool
        Whether its limit of tokens cut it off.

    Returns
    -------
    Reading
        A decision of known, distinct clients with a whole number of steps each; or a problem.
    """
    notes: list[str] = []
    try:
        said = _only_object(text, notes, truncated)
        decision = _decision(said, seen, notes)
    except _RefusedError as refused:
        return Reading(None, printable(str(refused)), _few(notes))
    except RecursionError:
        return Reading(None, "the answer's JSON is nested too deeply", _few(notes))
    return Reading(decision, "", _few(notes))


def _few(notes: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))[:MOST_NOTES]


# --- from text to an object ---------------------------------------------------------------


def _only_object(text: str, notes: list[str], truncated: bool) -> dict[str, Any]:
    """Find the one JSON object of an answer."""
    spoken = _THOUGHT.sub("", text).strip()
    if len(spoken) != len(text.strip()):
        notes.append("thoughts before the answer dropped")
    if not spoken:
        raise _RefusedError("the answer is empty")
    if len(spoken) > LONGEST_ANSWER:
        raise _RefusedError(f"the answer has over {LONGEST_ANSWER:,} characters: answer shorter")
    cut = " because the limit of tokens cut it off: answer shorter" if truncated else ""
    found, broken, around = [], False, spoken
    for value, source in _objects(spoken, notes):
        around = around.replace(source, "", 1)
        if value is None:
            broken = True
        elif any(key in value for key in KEYS):
            found.append((value, source))
    if _BEGINS_THOUGHT.search(around):  # a draft in it is no decision
        raise _RefusedError(f"the answer's thoughts have no end{cut}")
    if broken:
        raise _RefusedError(f"the answer's JSON is broken or not complete{cut}")
    if not found:
        raise _RefusedError(f'the answer holds no JSON object with "steps" and "stop"{cut}')
    if any(value != found[0][0] for value, _ in found):
        raise _RefusedError(f"the answer holds {len(found)} different JSON objects instead of one")
    if truncated and not spoken.rstrip(_FENCE).endswith(found[-1][1]):
        raise _RefusedError(f"the answer goes on after its JSON object and has no end{cut}")
    if len(found) > 1:
        notes.append("the same object said more than once")
    elif found[0][1] != spoken:
        notes.append("text round the JSON dropped")
    return found[0][0]


def _objects(text: str, notes: list[str]) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yield each outermost JSON object with its source; None for one that does not parse."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in items:
            if key in made and made[key] != value:
                raise _RefusedError(f'"{key}" is said twice and differently')
            if key in made:
                notes.append(f'"{printable(key, 40)}" is said twice')
            made[key] = value
        return made

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=_no_number)
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


def _decision(said: dict[str, Any], seen: Observation, notes: list[str]) -> Decision:
    extra = sorted(set(said) - set(KEYS))
    if extra:
        notes.append(printable(f"extra keys dropped: {', '.join(extra)}", 120))
    stop = _stop(said.get("stop", False), notes)
    told = said.get("reason", "")
    if not isinstance(told, str):
        notes.append("reason is not text: dropped")
    reason = printable(told) if isinstance(told, str) else ""
    try:
        steps = _chosen(said, seen, notes)
    except _RefusedError:
        if not stop:
            raise
        steps = {}
    if not steps and not stop:
        raise _RefusedError("nobody is chosen and stop is false: give a client steps, or stop")
    return Decision(participants=tuple(steps), steps=steps, stop=stop, reason=reason)


def _stop(value: Any, notes: list[str]) -> bool:
    if isinstance(value, bool):
        return value
    known = _STOPS.get(str(value).strip().lower()) if isinstance(value, int | str) else None
    if known is None:
        raise _RefusedError(f"stop is {_shown(value)} instead of true or false")
    notes.append(f"stop {_shown(value)} read as {str(known).lower()}")
    return known


def _chosen(said: dict[str, Any], seen: Observation, notes: list[str]) -> dict[int, int]:
    """Return each participant's steps, in order of the clients."""
    before = {view.client: view.steps for view in seen.clients}
    told = _told_steps(said.get("steps"), before, notes)
    named = said.get("participants")
    if named is None:
        if isinstance(told, int):
            raise _RefusedError("steps is one number: give each client its own")
        absent = sorted(set(before) - set(told))
        if absent and told:
            notes.append(f"no steps said of clients {_listed(absent)}: they sit out")
        return {k: told[k] for k in sorted(told) if told[k] > 0}
    chosen = _named(named, told if isinstance(told, dict) else {}, before, notes)
    if isinstance(told, int):
        notes.append(f"{told} steps read as each participant's")
        told = dict.fromkeys(chosen, told)
    idle = sorted(k for k in told if told[k] > 0 and k not in chosen)
    if idle:
        notes.append(f"steps of clients that do not train dropped: {_listed(idle)}")
    steps = {}
    for k in sorted(chosen):
        if k not in told:
            notes.append(f"client {k}: no steps said, {before[k]} as before")
        if told.get(k, before[k]) > 0:
            steps[k] = told.get(k, before[k])
        else:
            notes.append(f"client {k}: {told[k]} steps, so it sits out")
    return steps


def _told_steps(value: Any, known: dict[int, int], notes: list[str]) -> dict[int, int] | int:
    """Read ``steps``: by client, as a list of objects of client and steps, or one number."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return _by_client(list(value.items()), known, notes)
    if isinstance(value, list):
        return _by_client([_pair(item) for item in value], known, notes)
    return _whole(value, "steps", notes)


def _named(
    value: Any, told: dict[int, int], known: dict[int, int], notes: list[str]
) -> dict[int, int]:
    """Read ``participants``, a list of clients; one that brings its steps adds them to `told`."""
    if not isinstance(value, list):
        raise _RefusedError(f"participants is {_shown(value)} instead of a list of clients")
    if value and all(isinstance(item, dict) for item in value):
        named = _by_client([_pair(item) for item in value], known, notes)
        told.update(named)
        return named
    return _by_client([(item, 0) for item in value], known, notes)


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, dict) or "client" not in item or "steps" not in item:
        raise _RefusedError(f'{_shown(item)} instead of {{"client": ..., "steps": ...}}')
    return item["client"], item["steps"]


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
        return int(match.group(1)) if match else None
    # Compared before anything else: an integer of JSON may be too large for a float.
    return int(who) if 0 <= who <= LARGEST and who == int(who) else None


def _whole(value: Any, what: str, notes: list[str]) -> int:
    """Read a whole number; text and fractions are repaired with a note."""
    number: int | float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if number is None or not -LARGEST <= number <= LARGEST:  # neither is NaN or an infinity
        raise _RefusedError(f"{what}: {_shown(value)} is not a number of steps")
    if not isinstance(value, int):
        notes.append(f"{what}: {_shown(value)} read as {round(number)}")
    if number < 0:
        notes.append(f"{what}: {round(number)} is below 0")
    return round(number)


def _shown(value: Any) -> str:
    """Write a value as JSON, short."""
    return printable(json.dumps(value, default=str), 40)


def _listed(clients: list[int]) -> str:
    return ", ".join(str(client) for client in clients)
