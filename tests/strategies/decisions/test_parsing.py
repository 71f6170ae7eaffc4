"""Answers of every form become a decision or one line of problem, never an exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import Settings
from core.formatting import printable
from strategies.decisions import Decision
from strategies.decisions.guard import guard
from strategies.decisions.parsing import MOST_NOTES, ParsedDecision, parse_answer
from strategies.decisions.prompt import as_answer
from tests.strategies.agents.observations import seen, view

SEEN = seen([view(k, steps=10 + k) for k in range(4)])


def parsed(said: Any, truncated: bool = False) -> ParsedDecision:
    text = said if isinstance(said, str) else json.dumps(said)
    return parse_answer(text, SEEN, truncated)


def decided(said: Any) -> tuple[Decision, tuple[str, ...]]:
    result = parsed(said)
    assert result.problem == ""
    assert result.decision is not None
    return result.decision, result.notes


def test_the_asked_form_needs_no_repair() -> None:
    decision, notes = decided(
        {"reason": "0 helps", "steps": {"0": 20, "1": 0, "2": 7, "3": 0}, "stop": False}
    )
    assert decision == Decision(participants=(0, 2), steps={0: 20, 2: 7}, reason="0 helps")
    assert notes == ()


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 3), st.integers(1, 50), min_size=1), st.booleans())
def test_what_is_written_is_read_back(steps: dict[int, int], stop: bool) -> None:
    said = Decision(
        participants=tuple(sorted(steps)), steps=dict(sorted(steps.items())), stop=stop, reason="r"
    )
    assert parse_answer(as_answer(said, SEEN), SEEN) == ParsedDecision(said)


@pytest.mark.parametrize(
    ("said", "participants", "steps", "note"),
    [
        ('Sure!\n```json\n{"steps": {"0": 5}}\n```\nBye', (0,), {0: 5}, "text round the JSON"),
        ('<think>{"steps": {"1": 9}} or</think>{"steps": {"0": 5}}', (0,), {0: 5}, "thoughts"),
        ('{"steps": {"0": 5}} again: {"steps": {"0": 5}}', (0,), {0: 5}, "more than once"),
        ('{"steps": {"0": 5, "0": 5}}', (0,), {0: 5}, '"0" is said twice'),
        ({"steps": {"0": 5}, "mood": 1, "x\ny": 2}, (0,), {0: 5}, "keys dropped: mood, x y"),
        ({"steps": {"0": 5, "9": 5, "zoe": 1}}, (0,), {0: 5}, 'unknown client "9" dropped'),
        ({"steps": {"client 0": 5}}, (0,), {0: 5}, "no steps said of clients 1, 2, 3"),
        ({"steps": {"0": 5, "1": 0, "2": 0, "3": 0}}, (0,), {0: 5}, ""),
        ({"steps": {"0": "5"}}, (0,), {0: 5}, 'steps of client 0: "5" read as 5'),
        ({"steps": {"0": 5.6}}, (0,), {0: 6}, "steps of client 0: 5.6 read as 6"),
        ({"steps": {"0": 5, "1": -3}}, (0,), {0: 5}, "steps of client 1: -3 is below 0"),
        ({"steps": {"0": 999}}, (0,), {0: 999}, "they sit out"),  # bounds are the guard's
        ({"steps": {"0": 5}, "stop": "False"}, (0,), {0: 5}, 'stop "False" read as false'),
        ({"steps": {"0": 5}, "reason": ["no"]}, (0,), {0: 5}, "reason is not text"),
        ({"steps": [{"client": 2, "steps": 5}]}, (2,), {2: 5}, "of clients 0, 1, 3"),
        (
            {"steps": [{"client": 2, "steps": 5}, {"client": 2, "steps": 6}]},
            (2,),
            {2: 5},
            "repeated client 2 dropped",
        ),
        ({"participants": [3, 0], "steps": {"0": 5, "3": 6}}, (0, 3), {0: 5, 3: 6}, ""),
        ({"participants": [0, 0, 7], "steps": {"0": 5}}, (0,), {0: 5}, "repeated client 0"),
        ({"participants": [0, 7], "steps": {"0": 5}}, (0,), {0: 5}, "unknown client 7 dropped"),
        ({"participants": [0, 3]}, (0, 3), {0: 10, 3: 13}, "client 3: no steps said, 13 as before"),
        ({"participants": [0], "steps": {"0": 5, "1": 6}}, (0,), {0: 5}, "do not train dropped: 1"),
        ({"participants": [0, 1], "steps": 8}, (0, 1), {0: 8, 1: 8}, "8 steps read as each"),
        ({"participants": [{"client": 1, "steps": 4}]}, (1,), {1: 4}, ""),
        (
            {"participants": [0, 1], "steps": {"0": 0, "1": 5}},
            (1,),
            {1: 5},
            "client 0: 0 steps, so it sits out",
        ),
        ({"participants": ["1", 2.0], "steps": 3}, (1, 2), {1: 3, 2: 3}, "3 steps read as each"),
    ],
)
def test_what_can_be_understood_is_repaired_with_a_note(
    said: Any, participants: tuple[int, ...], steps: dict[int, int], note: str
) -> None:
    decision, notes = decided(said)
    assert decision.participants == participants
    assert decision.steps == steps
    assert note in " | ".join(notes)
    assert bool(notes) == bool(note)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("", "the answer is empty"),
        ("<think>hm</think>", "the answer is empty"),
        ("All of them, 20 steps.", "holds no JSON object"),
        ("[0, 1]", "holds no JSON object"),
        ('{"decision": "all"}', "holds no JSON object"),
        ('{"reason": "x", "steps": {"0": 5', "broken or not complete"),
        ('{"participants": [0], "steps": [{"client": 0, "steps": 5}, {"cl', "broken or not"),
        ("{'steps': {'0': 5}}", "holds no JSON object"),
        ('{"steps": {"0": 5,}}', "broken or not complete"),
        ('{"steps": {"0": 5}} {"steps": {"1": 5}}', "2 different JSON objects"),
        ('{"steps": {"0": 5, "0": 6}}', '"0" is said twice and differently'),
        ('{"steps": {"0": NaN}}', "NaN is not a number of steps"),
        ('{"steps": {"0": 1e999}}', "steps of client 0: Infinity is not a number"),
        ('{"steps": {"0": 1e7}}', "steps of client 0: 10000000.0 is not a number"),
        ('{"steps": {"0": %s}}' % ("9" * 5000), "broken or not complete"),
        ('{"steps": {"0": 1%s}}' % ("0" * 400), "steps of client 0: 1000"),
        ('{"steps": {"0": -1%s}}' % ("0" * 400), "steps of client 0: -1000"),
        ('{"participants": [1%s], "steps": 3}' % ("0" * 400), "nobody is chosen"),
        ('<think> maybe {"steps":{"0":5},"stop":true} but no, client 1 is', "thoughts have no end"),
        ('{"steps":{"0":5}}<THINKING>or not', "thoughts have no end"),
        ({"participants": [0, 1], "steps": 0}, "nobody is chosen and stop is false"),
        ({"steps": {"0": True}}, "steps of client 0: true is not a number"),
        ({"steps": {"0": "lots"}}, 'steps of client 0: "lots" is not a number'),
        ({"steps": {"0": None}}, "steps of client 0: null is not a number"),
        ({"steps": {"0": [5]}}, "steps of client 0: [5] is not a number"),
        ({"steps": 5}, "steps is one number"),
        ({"steps": True}, "steps: true is not a number"),
        ({"steps": ["0"]}, '"0" instead of {"client": ..., "steps": ...}'),
        ({"steps": {"0": 0, "1": 0}}, "nobody is chosen and stop is false"),
        ({"steps": {"7": 5}}, "nobody is chosen and stop is false"),
        ({"participants": []}, "nobody is chosen and stop is false"),
        ({"participants": "all"}, 'participants is "all" instead of a list'),
        ({"participants": [None]}, "null instead of a client's number"),
        ({"participants": [0], "stop": "maybe"}, 'stop is "maybe" instead of true or false'),
        ({"participants": [0], "stop": None}, "stop is null instead of true or false"),
        ("x" * 20_001, "over 20,000 characters"),
        ('{"a":' * 4000, "broken or not complete"),
        ('{"steps":' * 1900 + "1" + "}" * 1900, "broken or not complete"),
    ],
)
def test_what_cannot_is_refused_in_one_line(said: Any, problem: str) -> None:
    result = parsed(said)
    assert result.decision is None
    assert problem in result.problem
    assert len(result.problem) <= 300
    assert result.problem.isprintable()


@pytest.mark.parametrize("depth", range(700, 1000, 20))
def test_no_depth_is_an_exception(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    assert parsed(f'{{"participants": [{nested}], "stop": {nested}}}').problem
    twice = f'{{"steps": {nested}}}'
    assert parsed(twice + twice).problem


def test_a_cut_off_answer_is_told_to_be_shorter() -> None:
    assert "answer shorter" in parsed('{"reason": "since the', truncated=True).problem
    assert "answer shorter" in parsed("Well, first of all", truncated=True).problem
    draft = parsed('{"steps": {"0": 5}}\nOr better, since', truncated=True)
    assert "goes on after its JSON object" in draft.problem
    assert "answer shorter" in draft.problem
    for end in ("", "\n", "\n```\n"):
        whole = parsed('So: {"steps": {"0": 5}}' + end, truncated=True)
        assert whole.decision is not None
    tag = '{"reason": "a <think> in it", "steps": {"0": 5}}'
    assert parsed(tag).decision is not None


def test_a_stop_needs_nobody_and_keeps_whom_it_names() -> None:
    decision, _ = decided({"reason": "enough", "steps": {"0": 0}, "stop": True})
    assert decision == Decision(participants=(), steps={}, stop=True, reason="enough")
    early, _ = decided({"steps": {"1": 5}, "stop": True})
    bounded, notes = guard(early, SEEN, Settings())
    assert bounded.participants == (1,)  # no stop before stop.min_rounds: then whom it named
    assert notes == ["no stop before 2 rounds"]
    spoilt, _ = decided({"steps": {"1": "x"}, "stop": True})
    assert spoilt.participants == ()


def test_a_reason_is_one_printable_line() -> None:
    nasty = "a\n\x1b[31mb\u202ec\u2028d\ud800e\x00f " + "g" * 400
    decision, _ = decided({"reason": nasty, "steps": {"0": 5}})
    assert decision.reason.startswith(r"a \x1b[31mb\u202ec d\ud800e\x00f ggg")
    assert decision.reason.endswith("g…")
    assert len(decision.reason) == 300
    assert printable(" a \t b ") == "a b"


def test_a_thousand_mistakes_are_not_a_thousand_notes() -> None:
    _, notes = decided({"participants": list(range(3000)), "steps": 4})
    assert len(notes) == MOST_NOTES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
CLIENT = st.integers(-2, 6) | st.sampled_from(["0", "client 1", "x", 1.0, None])
STEPS = st.integers(-9, 99) | st.floats() | st.sampled_from(["5", "five", None, True])
FORMS = st.fixed_dictionaries(
    {},
    optional={
        "reason": JSON,
        "participants": st.lists(CLIENT, max_size=5) | JSON,
        "steps": st.dictionaries(st.sampled_from("01239"), STEPS, max_size=4) | STEPS | JSON,
        "stop": st.booleans() | JSON,
        "extra": JSON,
    },
)


@settings(max_examples=60, deadline=None)
@given(FORMS.map(json.dumps) | st.text() | JSON.map(json.dumps), st.text(max_size=5), st.booleans())
def test_anything_is_read_or_refused(said: str, around: str, truncated: bool) -> None:
    result = parse_answer(around + said + around, SEEN, truncated)
    assert (result.decision is None) == bool(result.problem)
    assert all(note.isprintable() for note in (*result.notes, result.problem))
    if result.decision is None:
        return
    known = {view.client for view in SEEN.clients}
    assert set(result.decision.steps) == set(result.decision.participants) <= known
    assert len(set(result.decision.participants)) == len(result.decision.participants)
    assert result.decision.participants or result.decision.stop
    bounded, _ = guard(result.decision, SEEN, Settings())
    assert bounded.stop or bounded.participants
