"""Ask, ask again with what was wrong, and in the end let the rule decide."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import pytest

from core import ModelError, parse_run
from llm.chat.model import Answer, ChatModelError, Question
from strategies import build_agent
from strategies.agents.all import AllAgent
from strategies.decisions import Decision, HasTranscript, Observation
from strategies.decisions.guard import guard
from strategies.decisions.llm_agent import LLMAgent
from strategies.journal import agent_summary, decision_line
from tests.strategies.agents.observations import seen, view

SEEN = seen([view(k, steps=4) for k in (0, 1)], round=1, max_steps=9, plain_steps=4)
FINE = json.dumps({"reason": "0 helps", "steps": {"0": 3, "1": 0}, "stop": False})


@dataclass
class Scripted:
    """A model that gives, or raises, one answer after the other."""

    script: list[str | ChatModelError]
    questions: list[Question] = field(default_factory=list)
    name: str = "parrot"
    closed: bool = False

    def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        scripted = self.script.pop(0)
        if isinstance(scripted, ChatModelError):
            raise scripted
        return Answer(scripted, 100, len(scripted), 0.5, truncated=scripted.endswith("..."))


def agent_of(*script: str | ChatModelError, retries: int = 2) -> LLMAgent:
    return LLMAgent("llm (parrot)", Scripted(list(script)), AllAgent(), retries)


def test_a_sound_answer_decides_and_is_on_record() -> None:
    agent = agent_of(FINE)
    assert isinstance(agent, HasTranscript)
    decision = agent.decide(SEEN)
    assert decision == Decision(participants=(0,), steps={0: 3}, reason="0 helps")
    line = decision_line("llm", SEEN, decision, [], agent)
    assert line["decided_by"] == "llm (parrot)"
    assert line["tokens"] == 100 + len(FINE)
    assert line["seconds"] == 0.5
    (attempt,) = line["attempts"]
    assert attempt["answer"] == FINE
    assert attempt["problem"] == ""
    assert "[system]" in attempt["prompt"]


def test_an_unusable_answer_is_asked_for_again_with_the_problem() -> None:
    agent = agent_of("no idea", '{"reason": "the...', FINE)
    assert agent.decide(SEEN).participants == (0,)
    problems = [attempt.problem for attempt in agent.attempts]
    assert "holds no JSON object" in problems[0]
    assert "answer shorter" in problems[1]
    assert problems[2] == ""
    requests = [q.messages[-1]["content"] for q in agent.chat_model.questions]  # type: ignore[attr-defined]
    assert problems[0] in requests[1]
    assert problems[1] in requests[2]
    assert agent.decided_by == "llm (parrot)"


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_after_the_retries_the_rule_decides_and_says_so(retries: int) -> None:
    agent = agent_of("a", "b", "c", "d", retries=retries)
    decision = agent.decide(SEEN)
    assert decision.steps == {0: 4, 1: 4}
    assert len(agent.attempts) == 1 + retries
    assert agent.decided_by == "all"
    assert decision.reason.startswith("all instead of llm (parrot) (the answer holds no JSON")
    assert decision.reason.endswith(": everybody trains")


def test_who_does_not_answer_in_time_is_not_asked_again_in_this_round() -> None:
    late = ChatModelError("no whole answer within 1 s", answer=Answer("{", 7, 1, 1.0))
    agent = agent_of(late, FINE)
    decision = agent.decide(SEEN)
    assert "no whole answer within 1 s" in decision.reason
    (attempt,) = agent.attempts
    assert (attempt.answer, attempt.prompt_tokens, attempt.seconds) == ("{", 7, 1.0)
    assert agent.decided_by == "all"
    assert agent.decide(SEEN).reason == "0 helps"  # the next round asks again
    assert agent.decided_by == "llm (parrot)"
    assert len(agent.attempts) == 1


def test_a_wrong_address_ends_the_run_before_its_first_round_and_no_later_one() -> None:
    wrong = ChatModelError("no such model", lasting=True)
    with pytest.raises(ModelError, match="no such model"):
        agent_of(wrong).decide(SEEN)
    agent = agent_of(FINE, wrong)
    agent.decide(SEEN)
    assert agent.decide(SEEN).reason.startswith("all instead of llm (parrot) (no such model)")


def test_after_an_unusable_answer_a_lasting_error_leaves_the_round_to_the_rule() -> None:
    agent = agent_of("no idea", ChatModelError("HTTP 400: no", lasting=True))
    assert agent.decide(SEEN).reason.startswith("all instead of llm (parrot) (HTTP 400: no)")
    assert agent.decided_by == "all"


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_an_empty_answer_is_no_turn_of_the_chat(nothing: str) -> None:
    agent = agent_of(nothing, FINE)
    agent.decide(SEEN)
    first, again = [q.messages for q in agent.chat_model.questions]  # type: ignore[attr-defined]
    assert [m["role"] for m in again] == ["system", "user"]
    assert again[1]["content"].startswith(first[1]["content"])
    assert "the answer is empty" in again[1]["content"]


def test_no_answer_is_waited_for_beyond_the_runs_own_time() -> None:
    agent = agent_of("no idea", FINE)
    agent.decide(SEEN.model_copy(update={"seconds_left": 5.0}))
    first, again = [q.seconds for q in agent.chat_model.questions]  # type: ignore[attr-defined]
    assert 0 < again < first <= 5.0
    agent = agent_of(FINE)
    agent.decide(SEEN)
    assert agent.chat_model.questions[0].seconds == math.inf  # type: ignore[attr-defined]


@dataclass
class Second:
    """A rule that names client 1."""

    name: str = "second"

    def decide(self, observation: Observation) -> Decision:
        return Decision(participants=(1,), steps={1: 2}, reason="1 is next")


def test_a_stop_is_the_models_and_an_early_one_leaves_the_round_to_the_rule() -> None:
    stop = json.dumps({"reason": "enough", "steps": {"0": 0, "1": 0}, "stop": True})
    agent = LLMAgent("llm (parrot)", Scripted([stop, stop]), Second(), min_rounds=2)
    decision = agent.decide(SEEN)
    assert decision.stop
    assert agent.decided_by == "second"
    bounded, notes = guard(decision, SEEN, parse_run([], ["stop.patience=3"])[0])
    assert (bounded.stop, bounded.steps) == (False, {1: 2})
    assert bounded.reason == "second, since llm (parrot) would stop (enough): 1 is next"
    assert notes == ["no stop before 2 rounds"]
    late = SEEN.model_copy(update={"losses": (0.5, 0.4)})
    assert agent.decide(late) == Decision(participants=(), steps={}, stop=True, reason="enough")
    assert agent.decided_by == "llm (parrot)"


def test_a_huge_answer_is_kept_whole_and_told_back_in_part() -> None:
    agent = agent_of("x" * 10**6, FINE)
    agent.decide(SEEN)
    assert len(agent.attempts[0].answer) == 10**6
    assert len(agent.attempts[1].prompt) < 10_000


def test_a_closed_set_is_offered_twice_and_its_probability_told() -> None:
    @dataclass
    class Picks:
        name: str = "picker"
        closed: bool = True

        def ask(self, question: Question) -> Answer:
            assert "Options:" in question.messages[1]["content"]
            assert len(question.options) >= 3
            best = next(
                k for k, text in question.options.items() if "everybody trains double" in text
            )
            shares = dict.fromkeys(question.options, 0.1) | {best: 0.4}
            return Answer(question.options[best], 50, 0, 0.1, likelihoods=shares)

    agent = LLMAgent("llm (picker)", Picks(), AllAgent())
    decision = agent.decide(SEEN)
    assert decision.steps == {0: 8, 1: 8}
    assert decision.reason.startswith("everybody trains double steps (probability 0.40 among")
    assert [attempt.uninformed for attempt in agent.attempts] == ["", ""]
    assert agent.decided_by == "llm (picker)"


def test_the_summary_adds_decisions_up() -> None:
    agent = agent_of("no", FINE, "no", "no", "no", '{"steps": {"0": "3"}}', FINE)
    lines = []
    for notes in ([], [], [], ["client 0: 99 steps bounded to 9"]):
        decision = agent.decide(SEEN)
        lines.append(decision_line("llm", SEEN, decision, notes, agent))
    lines.append(decision_line("llm", SEEN, decision, [], None))  # no client was left to decide of
    summary = agent_summary("llm", agent.name, lines)
    assert summary == {
        "kind": "llm",
        "name": "llm (parrot)",
        "decisions": 5,
        "asked": 7,
        "fallbacks": 1,
        "uninformed": 0,
        "everybody": {},
        "repaired": 2,
        "prompt_tokens": 700,
        "answer_tokens": 4 * 2 + 2 * len(FINE) + 21,
        "seconds": 3.5,
    }
    rule = [{"round": 1, "guard": []}, {"round": 2, "guard": ["x"]}]
    counts = agent_summary("rule", "rule (adaptive)", rule)
    assert (counts["decisions"], counts["asked"], counts["repaired"]) == (2, 0, 1)
    assert (counts["fallbacks"], counts["seconds"]) == (0, 0)


def test_an_endpoint_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_QFL_AGENT_URL", raising=False)
    settings, _ = parse_run([], ["agent.kind=endpoint", "agent.model=tiny"])
    with pytest.raises(ModelError, match="LLM_QFL_AGENT_URL is not set"):
        build_agent(settings)
