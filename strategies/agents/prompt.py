"""What a language model is told of a federation, and the form that its answer must take.

A prompt is made of an observation's numbers and of the words in this file and the contract:
nothing that a client wrote is among them.

**The answer's form** is one object ``{"reason": "...", "steps": {"0": 20, "1": 0}, "stop": false}``
whose ``steps`` has exactly the known clients as keys; 0 leaves a client out, so there is no list
of participants to contradict it. Every server's and library's constrained decoding can express
fixed keys, and they promise what ``uniqueItems`` would (which llguidance and hosted servers
refuse): each client once, none unknown, and an answer of bounded length. ``reason`` comes first,
so that the model argues before it decides. `strategies.agents.parsing` turns it into a `Decision`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm.chat.model import Question
from strategies.agents.contract import ClientView, Decision, Observation

LONGEST_REASON = 160
"""Characters of a reason where decoding is held to the schema; it has to fit the answer."""

MOST_ROUNDS = 8
"""Rounds of history in a prompt; earlier ones are left out."""

SYSTEM = """\
You direct the training of one small quantum classifier by a federation of clients. Before each \
round you decide which clients train, how many optimizer steps each of them takes, and whether \
the run stops. Circuits and waiting are what it costs.

Worth of a round = drop of the global model's validation loss (nats) - price x (its circuits at \
their prices / those of a plain round, in which everybody takes the plain steps) - idle price x \
(seconds that clients wait for the slowest / seconds that all work in a plain round).
Make the sum over the rounds large. Leave out clients that do not help or cost too much, but try \
each now and then. Give clients that train similar times. Stop when the next round would cost \
more than it brings."""

_FORM = """\
Answer with one JSON object and nothing else, its keys in this order:
{"reason": "one short sentence", "steps": {"0": 20, "1": 0}, "stop": false}
steps: every client of the table by its number; 0 leaves it out of this round. At least one client \
trains unless stop is true. stop: true ends the run before this round."""

_OPTIONS = "Answer with the letter of the best option and nothing else."

_SHARE = (
    "Its circuits of a round at plain steps, at their price, as a share of a plain round of "
    "everybody."
)
_COLUMNS = (
    "rows",
    "loss",
    "llm_loss",
    "ratio",
    "gap",
    "trend",
    "credit",
    "gain",
    "steps",
    "chosen",
    "rounds_since",
    "failures",
    "share",
    "seconds_per_step",
    "queue_seconds",
)
"""Columns of the table of clients after ``client``; all but ``share`` are a view's own fields."""


def question(
    seen: Observation, min_rounds: int, options: Mapping[str, tuple[str, str]] | None = None
) -> Question:
    """Put the question that decides a round.

    Parameters
    ----------
    seen : Observation
        What is known.
    min_rounds : int
        Rounds before which no stop is allowed.
    options : mapping, optional
        A closed set of answers: by label what each does, in our words, and the answer in full.

    Returns
    -------
    Question
        The chat and the answer's schema.
    """
    told = _FORM
    if options:
        listed = [f"{label}: {said}" for label, (said, _) in options.items()]
        told = "\n".join(["Options:", *listed, _OPTIONS])
    return Question(
        messages=(
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{describe(seen, min_rounds)}\n\n{told}"},
        ),
        schema=decision_schema(seen, may_stop(seen, min_rounds)),
        options={label: answer for label, (_, answer) in (options or {}).items()},
    )


def asked_again(before: Question, answer: str, problem: str) -> Question:
    """Put a question once more, with the unusable answer and what is wrong with it.

    An empty answer is no turn of the chat, which servers may refuse: the question then says it.
    """
    problem_told = f"That cannot be used: {problem}. Answer again with one JSON object only."
    system, user = before.messages[:2]
    if not answer.strip():
        content = f"{user['content']}\n\nYou were asked before. {problem_told}"
        return replace(before, messages=(system, {**user, "content": content}))
    more = (
        {"role": "assistant", "content": answer[:2000]},
        {"role": "user", "content": problem_told},
    )
    return replace(before, messages=(system, user, *more))


def may_stop(seen: Observation, min_rounds: int) -> bool:
    """Say whether enough rounds are done for a stop."""
    return len(seen.losses) >= min_rounds


def decision_schema(seen: Observation, stop_allowed: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of an answer: the `Decision`'s own, narrowed to an observation.

    Parameters
    ----------
    seen : Observation
        Names the clients and bounds the steps.
    stop_allowed : bool
        Whether ``stop`` may be true.

    Returns
    -------
    dict
        In the form that the module's description tells; every key is required.
    """
    full = Decision.model_json_schema()["properties"]
    steps = {"type": "integer", "minimum": 0, "maximum": seen.max_steps}
    clients = [str(view.client) for view in seen.clients]
    stop: dict[str, Any] = {"type": full["stop"]["type"]}
    if not stop_allowed:
        stop["enum"] = [False]
    return {
        "type": "object",
        "properties": {
            "reason": {
                "type": full["reason"]["type"],
                "description": full["reason"]["description"],
                "maxLength": LONGEST_REASON,
            },
            "steps": {
                "type": full["steps"]["type"],
                "description": f"{full['steps']['description']} 0: it does not train.",
                "properties": dict.fromkeys(clients, steps),
                "required": clients,
                "additionalProperties": False,
            },
            "stop": {**stop, "description": full["stop"]["description"]},
        },
        "required": ["reason", "steps", "stop"],
        "additionalProperties": False,
    }


def as_answer(decision: Decision, seen: Observation) -> str:
    """Write a decision in the form of an answer."""
    steps = {
        str(view.client): decision.steps.get(view.client, view.steps)
        if view.client in decision.participants
        else 0
        for view in seen.clients
    }
    return json.dumps({"reason": decision.reason, "steps": steps, "stop": decision.stop})


def describe(seen: Observation, min_rounds: int) -> str:
    """Describe an observation in numbers and our own words."""
    return "\n".join([*_situation(seen, min_rounds), "", *_table(seen)])


def _situation(seen: Observation, min_rounds: int) -> list[str]:
    """Tell the round, its prices and limits, and what happened so far."""
    plain = sum(v.circuits_fixed + seen.plain_steps * v.circuits_per_step for v in seen.clients)
    budgets = (
        ("circuits", seen.circuits_left),
        ("shots", seen.shots_left),
        ("QPU seconds", seen.qpu_seconds_left),
        ("seconds", seen.seconds_left),
    )
    left = [f"{number(value)} {unit}" for unit, value in budgets if value is not None]
    first = [] if seen.start_loss is None else [seen.start_loss]
    allowed = may_stop(seen, min_rounds)
    return [
        f"Round {seen.round}; {seen.rounds_left} rounds left with this one.",
        f"Steps of a client that trains: {seen.min_steps} to {seen.max_steps}; "
        f"plain: {seen.plain_steps}.",
        f"Price {number(seen.price)} nats, idle price {number(seen.idle_price)} nats. "
        f"A plain round takes {plain} circuits.",
        f"Budget left: {', '.join(left) or 'no limit but the rounds'}.",
        f"Stop: {'allowed' if allowed else f'not before {min_rounds} rounds are done'}.",
        f"Validation loss of the global model, nats: {_history([*first, *seen.losses])}.",
        f"Its validation accuracy after each round: {_history(seen.accuracies)}.",
    ]


def _history(values: Sequence[float]) -> str:
    """Write the last values, oldest first."""
    return " ".join(number(value) for value in values[-MOST_ROUNDS:]) or "none yet"


def _table(seen: Observation) -> list[str]:
    """Write one line a client, below what the columns mean; those that say nothing are left out."""
    cells: dict[str, list[str]] = {}
    for name in _COLUMNS:
        values = [_cell(name)(view, seen) for view in seen.clients]
        if name == "rows" or any(values):
            cells[name] = [number(value) for value in values]
    meanings = [f"{name}: {_meaning(name)}" for name in cells]
    rows = zip([str(view.client) for view in seen.clients], *cells.values(), strict=True)
    return ["Columns:", *meanings, "", " ".join(["client", *cells]), *(" ".join(r) for r in rows)]


def _meaning(column: str) -> str:
    return _SHARE if column == "share" else str(ClientView.model_fields[column].description)


def _cell(column: str) -> Callable[[ClientView, Observation], float | int | None]:
    def share(view: ClientView, seen: Observation) -> float | None:
        return view.spend(seen.plain_steps) / seen.plain_spend if seen.plain_spend else None

    def own(view: ClientView, seen: Observation) -> float | int | None:
        value: float | int | None = getattr(view, column)
        return value

    return share if column == "share" else own


def number(value: float | int | None) -> str:
    """Write a number in three digits, a whole one in all of them, and a dash for none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"
