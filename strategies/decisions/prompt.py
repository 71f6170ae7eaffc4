"""What a language model is shown of a federation, and the form that its answer must take.

A prompt is made of an observation's numbers and of the words in `prompt.toml` and the contract:
nothing that a client wrote is among them.

**The answer's form** is one object ``{"reason": "...", "steps": {"0": 20, "1": 0}, "stop": false}``
whose ``steps`` has exactly the known clients as keys; 0 leaves a client out, so there is no list
of participants to contradict it. Every server's and library's constrained decoding can express
fixed keys, and they promise what ``uniqueItems`` would (which llguidance and hosted servers
refuse): each client once, none unknown, and an answer of bounded length. ``reason`` comes first,
so that the model argues before it decides. `strategies.decisions.parsing` makes a `Decision` of it.
Of many clients the prompt describes a few (`strategies.decisions.shown`), and one more key,
``others``, stands for each of the rest.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm.chat.model import CHOICE, Question
from strategies.decisions.contract import ClientView, Decision, Observation
from strategies.decisions.shown import MOST_SHOWN, OTHERS, hidden_clients, shown_clients

LONGEST_REASON = 160
"""Characters of a reason where decoding is constrained to the schema; it has to fit the answer."""

MOST_ROUNDS = 8
"""Rounds of history in a prompt; earlier ones are left out."""

TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("prompt.toml").read_text("utf-8"))
"""The words of a prompt, and the columns of its table of clients."""

REASON: str = TEXTS["reason_form"]
"""What an answer's reason has to say, in the form's words."""


def question(
    seen: Observation, min_rounds: int, options: Mapping[str, Decision] | None = None
) -> Question:
    """Ask for a round's decision.

    Parameters
    ----------
    seen : Observation
        What is known.
    min_rounds : int
        Rounds before which no stop is allowed.
    options : mapping, optional
        A closed set of decisions by label.

    Returns
    -------
    Question
        The chat and the answer's schema.
    """
    form = TEXTS["form"].replace("{reason_form}", REASON)
    form += TEXTS["others_form"] if hidden_clients(seen) else ""
    if options:
        listed = [f"{label}: {_described(one)}" for label, one in options.items()]
        default = TEXTS["options"].format(default=_plainest(options, seen))
        form = "\n".join(["Options:", *listed, default])
    return Question(
        messages=(
            {"role": "system", "content": TEXTS["system"]},
            {"role": "user", "content": f"{describe(seen, min_rounds)}\n\n{form}"},
        ),
        schema=choice_schema(options)
        if options
        else decision_schema(seen, may_stop(seen, min_rounds)),
        options={label: as_answer(one, seen) for label, one in (options or {}).items()},
    )


def _plainest(options: Mapping[str, Decision], seen: Observation) -> str:
    """Return the option in which most clients take the plain steps: the one to take by default."""

    def plain(label: str) -> int:
        return sum(count == seen.plain_steps for count in options[label].steps.values())

    return max(options, key=plain)


def _described(decision: Decision) -> str:
    if len(decision.steps) > MOST_SHOWN:
        fewest, most = min(decision.steps.values()), max(decision.steps.values())
        steps = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return f"{decision.reason} ({len(decision.steps)} clients, {steps} steps each)"
    steps = ", ".join(f"{k}: {m}" for k, m in decision.steps.items())
    return decision.reason if decision.stop else f"{decision.reason} (steps by client {steps})"


def retry_question(before: Question, answer: str, problem: str) -> Question:
    """Repeat a question with the unusable answer and what is wrong with it.

    An empty answer is no turn of the chat, which servers may refuse: the question then says it.
    """
    again = f"That cannot be used: {problem}. Answer again with one JSON object only."
    system, user = before.messages[:2]
    if not answer.strip():
        content = f"{user['content']}\n\nYou were asked before. {again}"
        return replace(before, messages=(system, {**user, "content": content}))
    turn = {"role": "assistant", "content": answer[:2000]}
    return replace(before, messages=(system, user, turn, {"role": "user", "content": again}))


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
        In the form that the module's description shows; every key is required.
    """
    own = Decision.model_json_schema()["properties"]
    clients = [str(view.client) for view in shown_clients(seen)]
    clients += [OTHERS] if len(clients) < len(seen.clients) else []
    count = {"type": "integer", "minimum": 0, "maximum": seen.max_steps}
    steps = {
        "type": own["steps"]["type"],
        "description": f"{own['steps']['description']} 0: it does not train.",
        "properties": dict.fromkeys(clients, count),
        "required": clients,
        "additionalProperties": False,
    }
    texts = {k: {name: own[k][name] for name in ("type", "description")} for k in own}
    reason = {**texts["reason"], "maxLength": LONGEST_REASON}
    stop = texts["stop"] if stop_allowed else {**texts["stop"], "enum": [False]}
    return {
        "type": "object",
        "properties": {"reason": reason, "steps": steps, "stop": stop},
        "required": ["reason", "steps", "stop"],
        "additionalProperties": False,
    }


def choice_schema(options: Iterable[str]) -> dict[str, Any]:
    """Return the JSON Schema of a choice among labels, for servers that write their answers."""
    return {
        "type": "object",
        "properties": {CHOICE: {"type": "string", "enum": list(options)}},
        "required": [CHOICE],
        "additionalProperties": False,
    }


def as_answer(decision: Decision, seen: Observation) -> str:
    """Write a decision in the form of an answer.

    Clients that the prompt does not describe are named only where their steps differ.
    """
    hidden, before = hidden_clients(seen), {view.client: view.steps for view in seen.clients}
    given = {k: decision.steps.get(k, before[k]) for k in decision.participants}
    steps = {str(k): given.get(k, 0) for k in before if k not in hidden}
    if hidden:
        apart = {given.get(k, 0) for k in hidden}
        if len(apart) > 1:
            steps |= {str(k): count for k, count in given.items() if k in hidden}
        steps[OTHERS] = apart.pop() if len(apart) == 1 else 0
    return json.dumps({"reason": decision.reason, "steps": steps, "stop": decision.stop})


def describe(seen: Observation, min_rounds: int) -> str:
    """Describe an observation in numbers and our own words."""
    budgets = (
        ("circuits", seen.circuits_left),
        ("shots", seen.shots_left),
        ("QPU seconds", seen.qpu_seconds_left),
        ("seconds", seen.seconds_left),
    )
    left = [f"{number(value)} {unit}" for unit, value in budgets if value is not None]
    first = [] if seen.start_loss is None else [seen.start_loss]
    plain = seen.plain_steps
    stop = "allowed" if may_stop(seen, min_rounds) else f"not before {min_rounds} rounds are done"
    situation: str = TEXTS["situation"]
    return situation.format(
        seen=seen,
        price=number(seen.price),
        idle_price=number(seen.idle_price),
        circuits=sum(v.circuits_fixed + plain * v.circuits_per_step for v in seen.clients),
        budget=", ".join(left) or "no limit but the rounds",
        stop=stop,
        losses=_history([*first, *seen.losses]),
        accuracies=_history(seen.accuracies),
        table=_table(seen),
    )


def _history(values: Sequence[float]) -> str:
    """Write the last values, oldest first."""
    return " ".join(number(value) for value in values[-MOST_ROUNDS:]) or "none yet"


def _table(seen: Observation) -> str:
    """Write one line a client, below what the columns mean; those that say nothing are left out.

    Of many clients a last line says how many have none, and what they are in the mean.
    """
    views = shown_clients(seen)
    cells: dict[str, list[str]] = {"client": [str(view.client) for view in views]}
    meanings = []
    for name in TEXTS["columns"]:
        values = [_value(name, view, seen) for view in views]
        if name == "rows" or any(values):
            cells[name] = [number(value) for value in values]
            meanings.append(f"{name}: {_meaning(name)}")
    rows = [" ".join(row) for row in zip(*cells.values(), strict=True)]
    text = "\n".join(["Columns:", *meanings, "", " ".join(cells), *rows])
    return text if len(views) == len(seen.clients) else f"{text}\n\n{_others(seen)}"


def _others(seen: Observation) -> str:
    """Describe the clients that have no line in the table, together."""
    hidden = hidden_clients(seen)
    views = [view for view in seen.clients if view.client in hidden]
    known = [view.loss for view in views if view.loss is not None]
    share = sum(view.cost(seen.plain_steps) for view in views)
    text: str = TEXTS["others"]
    return text.format(
        shown=len(seen.clients) - len(views),
        clients=len(seen.clients),
        others=len(views),
        rows=number(sum(view.rows for view in views) / len(views)),
        loss=number(sum(known) / len(known) if known else None),
        trained=sum(view.chosen > 0 for view in views),
        share=number(share / seen.plain_spend if seen.plain_spend else None),
    )


def _meaning(column: str) -> str:
    if column == "share":
        return str(TEXTS["share"])
    return " ".join(str(ClientView.model_fields[column].description).split())


def _value(column: str, view: ClientView, seen: Observation) -> Any:
    if column != "share":
        return getattr(view, column)
    return view.cost(seen.plain_steps) / seen.plain_spend if seen.plain_spend else None


def number(value: float | int | None) -> str:
    """Write a number in three digits, a whole one in all of them, and a dash for none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"
