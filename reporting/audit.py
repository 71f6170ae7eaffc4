"""Replays a recorded run's decisions, without asking a model: ``python -m reporting.audit RUN``.

The agent is rebuilt from ``config.json`` and shown each observation of ``agent.jsonl`` in its
order; what it decides, within the run's limits, must be what is recorded. A language model is not
called: its recorded answers are parsed again, and its prompts must be those that the observations
give. Time reaches a decision through the observation only, so a replay is exact. `llm-qfl audit`
prints what comes out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from core import (
    Settings,
    UserError,
    no_run,
    plain,
    read_file,
    recorded_settings,
    registry,
)
from core.settings.derived import agent_declares
from core.storage.reading import Reader, parsed
from strategies import build_agent, loss_ratio
from strategies.decisions import Agent, Attempt, Decision, Observation
from strategies.decisions.guard import decide
from strategies.journal import decision_line
from strategies.privacy_budget import ended_by_budget

if TYPE_CHECKING:
    from llm.chat.model import Answer, Question

DECIDED = ("kind", "participants", "steps", "stop", "reason", "guard", "decided_by")
"""Keys of a line of ``agent.jsonl`` that a replay must give again; numbers of time are not."""

ATTEMPTED = ("prompt", "answer", "problem", "notes", "uninformed")
"""The same of each question to a language model."""

LONGEST = 120
"""Characters that are shown of a value."""

_Part = TypeVar("_Part", bound=BaseModel)
_LIKELIHOOD = re.compile(r"\(probability (\d\.\d\d) among (\d+) options\)$")


@dataclass(frozen=True)
class Line:
    """A line of ``agent.jsonl``: all of it, and the observation as agents take it."""

    recorded: Mapping[str, Any]
    seen: Observation


@dataclass(frozen=True)
class Finding:
    """What replaying a round's decision gave.

    Attributes
    ----------
    round : int
        The round.
    clients : int
        Clients that could be chosen.
    participants, steps, stop
        The decision as recorded.
    differs : tuple of str
        What is not the same, each with both values; empty: nothing.
    """

    round: int
    clients: int
    participants: tuple[int, ...]
    steps: Mapping[str, int]
    stop: bool
    differs: tuple[str, ...]


def audit(folder: Path) -> tuple[str, list[Finding], list[str]]:
    """Replay a run's decisions.

    An agent that learns has not seen the damaged lines: later rounds may differ for it.

    Parameters
    ----------
    folder : Path
        Its results folder.

    Returns
    -------
    tuple
        The agent's name, a finding for each recorded decision, and what is damaged.

    Raises
    ------
    UserError
        If there is no such record, or nothing of it can be read.
    """
    settings = recorded_settings(folder)
    lines, damaged = read_lines(folder / "agent.jsonl")
    agent, load_answers = _rebuilt(settings, folder)
    found = []
    for line in lines:
        load_answers(line.recorded)
        decision, notes, decided_by = decide(agent, line.seen, settings)
        if ended_by_budget(settings, str(line.recorded["reason"]), line.seen.round):
            decision = Decision.to_stop(str(line.recorded["reason"]))
        replayed = decision_line(settings.agent.kind, line.seen, decision, notes, decided_by)
        found.append(_finding(line, plain(replayed), drawn=not getattr(agent, "repeats", True)))
    return agent.name, found, damaged


# --- the record ---------------------------------------------------------------------------


def read_lines(path: Path, most: int | None = None) -> tuple[list[Line], list[str]]:
    """Read every decision of a run.

    Parameters
    ----------
    path : Path
        ``agent.jsonl``.
    most : int, optional
        Bytes of it that count; what follows them is not looked at.

    Returns
    -------
    tuple
        The whole lines, and what is wrong with each of the others.

    Raises
    ------
    UserError
        If there is no such file, or it holds no decision.
    """
    try:
        *texts, rest = read_file(path)[:most].split(b"\n")
    except FileNotFoundError:
        raise UserError(no_run(f"no {str(path)!r}")) from None
    except OSError as error:
        raise _damaged(path, error.strerror or "unreadable") from None
    lines, damaged = [], []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(_line(path, number, text))
        except UserError as error:
            damaged.append(str(error))
    if rest:
        damaged.append(str(_damaged(path, f"line {len(texts) + 1} is not complete")))
    if not lines:
        raise UserError(damaged[0]) if damaged else _damaged(path, "it holds no decision")
    return lines, damaged


def whole_lines(path: Path, most: int | None = None) -> list[Line]:
    """Read every decision of a run that is to go on.

    Raises
    ------
    UserError
        If there is none, or one is damaged.
    """
    lines, damaged = read_lines(path, most)
    if damaged:
        raise UserError(damaged[0])
    return lines


def _line(path: Path, number: int, text: bytes) -> Line:
    value, why = parsed(text)
    if value is None:
        raise _damaged(path, f"line {number} is {why}")
    absent = [key for key in ("round", "observation", *DECIDED[:-1]) if key not in value]
    if absent:
        raise _damaged(path, f"line {number} lacks {', '.join(absent)}")
    decided = {key: value[key] for key in Decision.model_fields}
    attempts = value.get("attempts") or []
    seen = _as(Observation, value["observation"], path, number, "observation")
    _as(Decision, decided, path, number, "decision")
    for attempt in attempts if isinstance(attempts, list) else [attempts]:
        _as(Attempt, attempt, path, number, "attempts")
    if not value["round"] == seen.round == number:
        rounds = f"line {number} is of round {value['round']}, its observation of {seen.round}"
        raise _damaged(path, rounds)
    return Line(value, _restored(seen))


def _as(kind: type[_Part], value: Any, path: Path, number: int, name: str) -> _Part:
    """Validate a part of a line; the error names the first thing that is wrong with it."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise _damaged(path, f"line {number}, {where}: {first['msg']}") from None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{str(path)!r} ({why})",
        "the decisions of a run, a whole line each from round 1 on, as this version writes them",
        "take an unchanged record, or the version that made it",
    )


def _restored(seen: Observation) -> Observation:
    """Put an infinite ratio back (a perfect language model), which JSON has no number for."""
    clients = tuple(
        view.model_copy(update={"ratio": loss_ratio(view.loss, view.llm_loss)})
        if view.ratio is None and view.loss is not None and view.llm_loss is not None
        else view
        for view in seen.clients
    )
    return seen.model_copy(update={"clients": clients})


# --- the agent ----------------------------------------------------------------------------


def _rebuilt(settings: Settings, folder: Path) -> tuple[Agent, Callable[[Mapping[str, Any]], None]]:
    """Build the run's agent, and what is to be called with each line before its decision."""
    kind = settings.agent.kind
    if not agent_declares(settings, "asks_model"):
        return build_agent(settings), lambda line: None
    if kind not in registry.shipped("agent"):
        raise UserError(
            f"agent.kind = {kind!r} asks a model of its own",
            "an agent whose decisions follow from its observations",
            "read its decisions in agent.jsonl",
        )
    events = Reader(folder).lines("metrics.jsonl")
    prepared = next((e for e in events if e.get("event") == "prepared"), {})
    name = str(prepared.get("agent") or f"{kind} ({settings.agent.model})")
    recorded = RecordedChatModel(name.removeprefix(f"{kind} (").removesuffix(")"))
    return registry.find("agent", kind).from_settings(settings, recorded), recorded.load


class RecordedChatModel:
    """Gives the recorded answers of a language model, instead of asking it.

    Parameters
    ----------
    name : str
        The model's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._attempts: list[Mapping[str, Any]] = []
        self._seen: Observation | None = None
        self._likelihoods: dict[str, float] = {}

    @property
    def closed(self) -> bool:
        """Whether the model chose among options: the recorded questions list them."""
        return any("\nOptions:\n" in str(one.get("prompt")) for one in self._attempts)

    def load(self, line: Mapping[str, Any]) -> None:
        """Load the answers of a line of ``agent.jsonl``."""
        self._attempts = list(line.get("attempts") or [])
        self._seen = Observation.model_validate(line["observation"])
        match = _LIKELIHOOD.search(str(line["reason"]))
        options = range(int(match.group(2)) if match else 0)
        self._likelihoods = {str(k): float(match.group(1)) if match else 0.0 for k in options}

    def ask(self, question: Question) -> Answer:
        """Give the next recorded answer.

        Raises
        ------
        llm.chat.model.ChatModelError
            If there is none, or if on record no answer came.
        """
        from llm.chat.model import Answer, ChatModelError
        from strategies.decisions.parsing import parse_answer

        if not self._attempts or self._seen is None:
            raise ChatModelError("no further answer is on record")
        attempt = self._attempts.pop(0)
        text, problem = str(attempt.get("answer", "")), str(attempt.get("problem", ""))
        for truncated in (False, True):
            if parse_answer(text, self._seen, truncated).problem == problem:
                return Answer(text, truncated=truncated, likelihoods=self._likelihoods)
        if problem and not self._attempts:
            raise ChatModelError(problem, answer=Answer(text))
        return Answer(text, likelihoods=self._likelihoods)


# --- the comparison -----------------------------------------------------------------------


def _finding(line: Line, replayed: Mapping[str, Any], *, drawn: bool) -> Finding:
    """Compare; of participants ``drawn`` in secret only how many there are comes again."""
    recorded = line.recorded
    before, again = (sorted(one["steps"].values()) for one in (recorded, replayed))
    if drawn and before == again:
        replayed = {**replayed, **{key: recorded[key] for key in ("participants", "steps")}}
    differs = [*_differences(recorded, replayed, DECIDED), *_attempts(recorded, replayed)]
    return Finding(
        round=line.seen.round,
        clients=len(line.seen.clients),
        participants=tuple(recorded["participants"]),
        steps=recorded["steps"],
        stop=bool(recorded["stop"]),
        differs=tuple(differs),
    )


def _attempts(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> list[str]:
    before, again = recorded.get("attempts") or [], replayed.get("attempts") or []
    if len(before) != len(again):
        return [f"{len(before)} questions recorded, {len(again)} replayed"]
    return [
        f"question {place}: {difference}"
        for place, (one, other) in enumerate(zip(before, again, strict=True), 1)
        for difference in _differences({"uninformed": "", **one}, other, ATTEMPTED)
    ]


def _differences(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any], keys: Sequence[str]
) -> list[str]:
    return [
        f"{key} {_shown(recorded.get(key))} recorded, {_shown(replayed.get(key))} replayed"
        if key != "prompt"
        else "the prompt is not the one that the observation gives"
        for key in keys
        if recorded.get(key) != replayed.get(key)
    ]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def main(words: Sequence[str]) -> int:
    """Print the findings as JSON; 2 for a user's mistake, in the last line of stderr."""
    if len(words) != 1:
        print("usage: python -m reporting.audit RUN", file=sys.stderr)
        return 2
    try:
        name, found, damaged = audit(Path(words[0]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    rounds = [asdict(finding) for finding in found]
    print(json.dumps({"agent": name, "rounds": rounds, "damaged": damaged}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
