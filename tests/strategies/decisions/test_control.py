"""Answers that do not go by what was asked are counted; sound ones never are."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from llm.chat.model import Answer, ChatModelError, Question
from strategies.agents.all import AllAgent
from strategies.decisions import Decision, Observation
from strategies.decisions.control import (
    COPIED,
    OTHER_OPTION,
    SAME_CLIENTS,
    SAME_LETTER,
    copies_form,
    ignored_options,
    ignored_table,
    mirrored,
    singles_out,
    turned_round,
)
from strategies.decisions.llm_agent import LLMAgent
from strategies.decisions.parsing import parse_answer
from strategies.decisions.prompt import REASON, TEXTS, question
from strategies.journal import agent_summary, decision_line
from tests.strategies.agents.observations import seen, view

Table = dict[int, dict[str, float]]


def table_of(asked: Question) -> Table:
    """Read the prompt's table back, as a model would."""
    text = asked.messages[1]["content"].split("\nclient ")[1]
    head, *rows = text.split("\n\n")[0].splitlines()
    cells = [row.split() for row in rows]
    names = head.split()
    return {
        int(client): {n: float(c) if c != "-" else 0.0 for n, c in zip(names, row, strict=True)}
        for client, *row in cells
    }


@dataclass
class Model:
    """Answers with steps by client from the table, or with a letter from the options."""

    steps: Callable[[Table], dict[int, int]] | None = None
    letter: Callable[[dict[str, str]], str] | None = None
    reason: str = "as the numbers say"
    name: str = "model"
    questions: list[Question] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        return self.letter is not None

    def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        if self.letter is not None:
            return Answer(question.options[self.letter(dict(question.options))])
        assert self.steps is not None
        table = table_of(question)
        steps = dict.fromkeys(table, 0) | self.steps(table)
        by_name = {str(k): m for k, m in sorted(steps.items())}
        return Answer(json.dumps({"reason": self.reason, "steps": by_name, "stop": False}))


def played(model: Model, rounds: int = 12, clients: int = 5) -> list[LLMAgent]:
    """Let a model decide rounds of a federation whose numbers move; return each round's state."""
    chance, given = random.Random(1), dict.fromkeys(range(clients), 10)
    states = []
    for number in range(1, rounds + 1):
        views = [
            view(
                k,
                rows=100 + 10 * k,
                steps=given.get(k, 10),
                loss=0.9 - 0.1 * k + 0.01 * chance.random(),  # the order of merit stays
                credit=0.01 * k + 0.001 * chance.random(),
                chosen=number - 1,
                rounds_since=0 if k in given else 1,
            )
            for k in range(clients)
        ]
        agent = LLMAgent("llm (model)", model, AllAgent(), 0)
        states.append(agent)
        decision = agent.decide(seen(views, round=number, losses=(0.5,) * (number - 1)))
        given = dict(decision.steps)
    return states


def counted(states: list[LLMAgent]) -> list[str]:
    return [agent.attempts[-1].uninformed for agent in states]


def best(table: Table, many: int, key: str, sign: int = 1) -> dict[int, int]:
    ranked = sorted(table, key=lambda k: sign * table[k][key])
    return dict.fromkeys(ranked[:many], 10)


SOUND: dict[str, Callable[[Table], dict[int, int]]] = {
    "everybody": lambda table: dict.fromkeys(table, 10),
    "lowest loss": lambda table: best(table, 2, "loss"),
    "highest loss": lambda table: best(table, 1, "loss", -1),
    "most credit": lambda table: best(table, 3, "credit", -1),
    "steps by rank": lambda table: {k: 5 + 2 * r for r, k in enumerate(best(table, 5, "loss"))},
}


@pytest.mark.parametrize("name", SOUND)
def test_who_goes_by_the_table_is_never_counted(name: str) -> None:
    """The same clients in every round, for a reason: the control question moves them."""
    states = played(Model(SOUND[name]))
    assert counted(states) == [""] * len(states)
    assert {agent.decided_by for agent in states} == {"llm (model)"}
    if name != "everybody":
        assert all(len(agent.attempts) == 2 for agent in states[1:])


@pytest.mark.parametrize("steps", [{0: 20}, {0: 10, 1: 10}, {0: 10, 1: 20, 2: 10, 3: 10, 4: 10}])
def test_who_names_the_same_clients_whatever_they_are_is_counted(steps: dict[int, int]) -> None:
    states = played(Model(lambda _: steps))
    assert counted(states) == ["", *[SAME_CLIENTS] * 11]  # at first nothing is known of anybody
    ruled = states[1]
    assert ruled.decided_by == "all"
    control = ruled.attempts[1]
    assert control.prompt != ruled.attempts[0].prompt
    assert control.answer == ruled.attempts[0].answer


def test_who_names_clients_by_chance_is_counted_and_who_wavers_is_not() -> None:
    shown = seen([view(k, loss=0.1 * k, chosen=1) for k in range(4)])
    first = Decision.to_train({0: 20, 1: 10}, "")  # dealt out: 0 and 1 change with 3 and 2

    def found(**steps: int) -> str:
        given = {int(k[1:]): m for k, m in steps.items()}
        return ignored_table(first, Decision.to_train(given, ""), shown)

    dealt = {v.client: v.loss for v in mirrored(shown, first).clients}  # type: ignore[union-attr]
    assert dealt == {0: 0.1 * 2, 2: 0.0, 1: 0.1 * 3, 3: 0.1}
    assert not found(k2=20, k3=10)
    assert not found(k2=20)  # nearly so
    assert not found(k2=18, k3=14, k0=5)
    assert found(k0=20, k1=10)
    assert found(k0=10, k1=10, k2=10, k3=10)  # of no client more than of another
    assert found(k1=7, k0=9)


def test_the_forms_words_are_no_reason() -> None:
    states = played(Model(SOUND["lowest loss"], reason=f"<{REASON.capitalize()}.>"), 1)
    assert counted(states) == [COPIED]
    assert len(states[0].attempts) == 1
    line = decision_line("llm", seen([view(0)]), Decision.to_stop("x"), [], states[0])
    summary = agent_summary("llm", "llm", [line])
    assert (summary["uninformed"], summary["fallbacks"], summary["repaired"]) == (1, 1, 0)
    for reason in ("<TEXT>", "text", REASON):
        assert copies_form(Decision.to_train({0: 1}, reason))
    for reason in ("client 2 has the lowest loss", "the numbers of the table decide: 2", ""):
        assert not copies_form(Decision.to_train({0: 1}, reason))


def test_the_form_cannot_be_copied() -> None:
    shown = seen([view(0), view(1)])
    form = re.search(r"^\{.*\}$", question(shown, 1).messages[1]["content"], re.MULTILINE)
    assert form
    assert parse_answer(form[0], shown).decision is None
    assert not re.search(r'"\d+": \d', TEXTS["form"])


def test_no_control_where_clients_are_alike_or_nobody_is_singled_out() -> None:
    one = Decision.to_train({0: 10}, "")
    assert mirrored(seen([view(k) for k in range(3)]), one) is None
    trained = seen([view(k, chosen=1) for k in range(3)])
    assert singles_out(one, trained)
    assert not singles_out(one, seen([view(k) for k in range(3)]))
    assert not singles_out(Decision.to_train({0: 10, 1: 10, 2: 10}, ""), trained)
    assert not singles_out(Decision.to_stop(""), trained)


def test_a_mirror_moves_every_number_but_the_labels() -> None:
    shown = seen([view(k, rows=k + 1, loss=k / 10) for k in range(4)])
    other = mirrored(shown, Decision.to_train({3: 20, 1: 10}, ""))
    assert other is not None
    assert [v.client for v in other.clients] == [0, 1, 2, 3]
    assert [v.rows for v in other.clients] == [4, 3, 2, 1]  # ranked 0, 2, 1, 3
    assert other.model_copy(update={"clients": shown.clients}) == shown


def by_text(words: str) -> Callable[[dict[str, str]], str]:
    return lambda options: next(k for k, text in options.items() if words in text)


def test_a_choice_goes_by_the_options_or_is_counted() -> None:
    for words in ("everybody trains double", "half the steps", "everybody trains plain"):
        assert counted(played(Model(letter=by_text(words)), 3)) == [""] * 3
    assert counted(played(Model(letter=lambda options: "A"), 3)) == [SAME_LETTER] * 3
    letters = iter("AB" * 3)
    assert counted(played(Model(letter=lambda options: next(letters)), 3)) == [OTHER_OPTION] * 3


def test_options_in_reverse() -> None:
    three = {k: Decision.to_train({0: n}, k) for n, k in enumerate("ABC", 1)}
    assert [d.reason for d in turned_round(three).values()] == ["C", "B", "A"]
    assert list(turned_round(three)) == ["A", "B", "C"]
    assert not ignored_options("A", "C", three)
    assert not ignored_options("B", "B", three)  # the one in the middle stays where it is


def test_a_control_question_without_an_answer_leaves_the_round_to_the_rule() -> None:
    model = Model(lambda _: {0: 10})
    shown = seen([view(k, loss=0.1 * k, chosen=1, rounds_since=k) for k in range(3)])
    agent = LLMAgent("llm (model)", model, AllAgent(), 0)
    ask = model.ask

    def fails(question: Question) -> Answer:
        if model.questions:
            raise ChatModelError("too late")
        return ask(question)

    model.ask = fails  # type: ignore[method-assign]
    decision = agent.decide(shown)
    assert decision.reason.startswith("all instead of llm (model) (a control question: too late)")
    assert [attempt.problem for attempt in agent.attempts] == ["", "too late"]


def test_the_observation_of_a_control_is_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: Observation = seen([view(k, loss=0.1 * k) for k in range(60)])
    other = mirrored(shown, Decision.to_train({0: 10, 59: 10}, ""))
    assert other is not None
    assert len(other.clients) == 60
    assert sorted(str(v.loss) for v in other.clients) == sorted(str(v.loss) for v in shown.clients)
