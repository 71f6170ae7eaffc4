"""Prompts say what an observation holds, schemas what an answer may be, options what to choose."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.llm_agent import LABELS, choices, credit_per_cost
from strategies.decisions.prompt import (
    as_answer,
    decision_schema,
    describe,
    may_stop,
    number,
    question,
    retry_question,
)
from tests.strategies.agents import observations


def view(client: int, **changes: Any) -> ClientView:
    base = {"rows": 100 + client, "circuits_per_step": 20, "circuits_fixed": 8}
    return observations.view(client, **{**base, **changes})


def seen(*clients: ClientView, **changes: Any) -> Observation:
    base = {"round": 3, "rounds_left": 4, "max_steps": 30}
    spend = sum(v.cost(10) for v in clients)
    return observations.seen(clients, **{**base, "plain_spend": spend, **changes})


def table(text: str) -> dict[str, dict[str, str]]:
    """Read a prompt's table back: by client, the cell of each column."""
    head, *rows = text.split("\nclient ")[1].split("\n\n")[0].splitlines()
    return {row.split()[0]: dict(zip(head.split(), row.split()[1:], strict=True)) for row in rows}


def test_a_prompt_has_the_numbers_and_leaves_out_what_is_unknown() -> None:
    shown = seen(
        view(0, loss=0.5, credit=-0.0123, circuit_price=3.0),
        view(4, loss=None, rounds_since=2),
        losses=(0.61, 0.58),
        accuracies=(0.7, 0.71),
        start_loss=0.69,
        circuits_left=1500,
        price=0.005,
        idle_price=0.0025,
    )
    text = describe(shown, min_rounds=5)
    assert "Round 3; 4 rounds left" in text
    assert "2 to 30; plain: 10" in text
    assert "Price 0.005 nats, idle price 0.0025 nats. A plain round takes 416 circuits." in text
    assert "Budget left: 1500 circuits." in text
    assert "Stop: not before 5 rounds are done." in text
    assert "nats: 0.69 0.61 0.58." in text
    assert table(text) == {
        "0": {
            "rows": "100",
            "loss": "0.5",
            "credit": "-0.0123",
            "steps": "10",
            "rounds_since": "0",
            "share": "0.75",
        },
        "4": {
            "rows": "104",
            "loss": "-",
            "credit": "-",
            "steps": "10",
            "rounds_since": "2",
            "share": "0.25",
        },
    }
    for column in ("rows", "loss", "credit", "steps", "rounds_since"):
        meaning = " ".join(str(ClientView.model_fields[column].description).split())
        assert f"\n{column}: {meaning}" in text
    assert "queue_seconds" not in text  # nobody waited: the column would be empty


def test_a_long_history_is_cut_to_its_end() -> None:
    text = describe(seen(view(0), losses=tuple(range(1, 100)), accuracies=(0.5,) * 99), 1)
    assert "nats: 92 93 94 95 96 97 98 99." in text
    assert "Stop: allowed." in text
    assert "Budget left: no limit but the rounds." in text


def test_a_prompt_grows_by_a_line_a_client() -> None:
    many = [view(k, loss=0.123456, credit=0.001234, gain=0.2, gap=0.1) for k in range(40)]
    small = question(seen(*many[:10]), 1).text
    large = question(seen(*many), 1).text
    assert len(small) < 4500
    assert (len(large) - len(small)) / 30 < 60


def test_numbers_are_short() -> None:
    assert [number(x) for x in (None, 12345, 0.123456, -1e-7, 1e9)] == [
        "-",
        "12345",
        "0.123",
        "-1e-07",
        "1e+09",
    ]


def test_the_schema_takes_what_is_allowed_and_nothing_else() -> None:
    shown = seen(view(0), view(4))
    schema = decision_schema(shown)
    jsonschema.Draft202012Validator.check_schema(schema)
    fine = {"reason": "so", "steps": {"0": 0, "4": 30}, "stop": False}
    jsonschema.validate(fine, schema)
    for spoilt in (
        {**fine, "steps": {"0": 1}},
        {**fine, "steps": {"0": 1, "4": 1, "5": 1}},
        {**fine, "steps": {"0": 31, "4": 1}},
        {**fine, "steps": {"0": -1, "4": 1}},
        {**fine, "steps": {"0": 1.5, "4": 1}},
        {**fine, "stop": "no"},
        {**fine, "mood": "good"},
        {**fine, "reason": "x" * 161},
        {"steps": fine["steps"], "stop": False},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoilt, schema)
    jsonschema.validate({**fine, "stop": True}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**fine, "stop": True}, decision_schema(shown, stop_allowed=False))


def test_the_schema_follows_the_decision() -> None:
    """Types and descriptions are the contract's: a field of another type would show here."""
    own = Decision.model_json_schema()["properties"]
    theirs = decision_schema(seen(view(0)))["properties"]
    assert set(own) - set(theirs) == {"participants"}
    assert {name: part["type"] for name, part in theirs.items()} == {
        name: own[name]["type"] for name in theirs
    }
    assert own["steps"]["additionalProperties"]["type"] == "integer"


def test_a_question_allows_a_stop_only_when_enough_rounds_are_done() -> None:
    shown = seen(view(0), losses=(0.6,))
    assert question(shown, 1).schema["properties"]["stop"].get("enum") is None
    assert question(shown, 2).schema["properties"]["stop"]["enum"] == [False]
    assert not may_stop(shown, 2)


def test_a_question_is_asked_again_with_what_was_wrong() -> None:
    first = question(seen(view(0)), 1)
    again = retry_question(first, "no" * 9000, "it is no JSON")
    more = retry_question(again, "{}", "nobody is chosen")
    assert [m["role"] for m in more.messages] == ["system", "user", "assistant", "user"]
    assert more.messages[:2] == first.messages
    assert "That cannot be used: nobody is chosen." in more.messages[-1]["content"]
    assert len(again.messages[2]["content"]) == 2000
    assert more.text.startswith("[system]\n")


# --- a closed set ---------------------------------------------------------------------------


def test_choices_rank_by_credit_per_cost() -> None:
    shown = seen(
        view(0, credit=0.02, circuit_price=5.0, rounds_since=0),
        view(1, credit=0.01, rounds_since=3),
        view(2, credit=-0.03, rounds_since=1),
        view(3, rounds_since=3),
    )
    rule = Decision(participants=(2,), steps={2: 13})
    offered = choices(shown, rule, stop_allowed=True)
    by_name = {decision.reason: decision for decision in offered.values()}
    assert list(offered) == list(LABELS[: len(offered)])
    assert by_name["everybody trains double steps"].steps == dict.fromkeys(range(4), 20)
    assert by_name["the rule decides"].steps == {2: 13}
    assert by_name["the half with most credit per cost, plain steps"].participants == (0, 1)
    assert by_name["the client with most credit per cost, double steps"].steps == {1: 20}
    assert by_name["the half that waited longest, plain steps"].participants == (1, 3)
    assert by_name["stop the run now"].stop
    assert "those whose credit is above 0, plain steps" not in by_name  # the same as the half


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.none() | st.floats(-1, 1), min_size=1, max_size=12),
    st.integers(2, 30),
    st.booleans(),
)
def test_every_choice_keeps_to_the_limits(
    credits: list[float | None], plain: int, stop: bool
) -> None:
    views = [view(k, credit=credit) for k, credit in enumerate(credits)]
    shown = seen(*views, plain_steps=plain)
    rule = Decision(participants=(0,), steps={0: 3})
    offered = choices(shown, rule, stop)
    decisions = list(offered.values())
    allowed = jsonschema.Draft202012Validator(decision_schema(shown))
    assert len(offered) >= 2
    assert any(decision.stop for decision in decisions) == stop
    assert len({json.dumps(d.steps) for d in decisions}) == len(decisions)
    for decision in decisions:
        assert set(decision.steps) == set(decision.participants)
        assert all(2 <= m <= 30 for m in decision.steps.values())
        allowed.validate(json.loads(as_answer(decision, shown)))


def test_options_are_listed_by_their_letters() -> None:
    shown = seen(view(0), view(1))
    options = {"A": Decision.to_train({1: 9}, "one"), "B": Decision.to_stop("stop")}
    request = question(shown, 1, options)
    text = request.messages[1]["content"]
    assert "A: one (steps by client 1: 9)\nB: stop\nWhere the table shows no client" in text
    assert "the best is A. Answer with the letter" in text
    assert request.schema["properties"]["option"]["enum"] == ["A", "B"]
    assert "one JSON object" not in text
    assert json.loads(request.options["A"])["steps"] == {"0": 0, "1": 9}
    assert json.loads(request.options["B"]) == {
        "reason": "stop",
        "steps": {"0": 0, "1": 0},
        "stop": True,
    }


def test_harm_that_is_dear_ranks_last() -> None:
    known = [(0.2, 10), (0.2, 100), (0.0, 10), (-0.2, 10), (-0.2, 100)]
    clients = [view(0, credit=c, circuits_fixed=n, circuits_per_step=0) for c, n in known]
    ranked = [credit_per_cost(client, seen(client)) for client in clients]
    assert ranked == sorted(set(ranked), reverse=True)
