"""A user's agent: built, checked and bounded like ours; what is wrong with it is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import FIELDS, SettingsError, parse_run, registry
from core.settings.derived import agent_declares, fine_tunes_llm, worst_steps
from reporting.audit import audit
from strategies import build_agent
from strategies.decisions import Decision
from strategies.decisions.extension import OwnAgent, find_agent, rehearsal
from strategies.decisions.guard import decide, guard
from tests.conftest import Federate
from tests.strategies.agents.observations import seen, settings_of, view

Write = Callable[[str], str]
SEEN = seen([view(k) for k in range(3)], losses=(0.5,), accuracies=(0.5,))
HEAD = "from llm_qfl import Decision\n\nclass Mine:\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write an agent's file into the working folder; return what `agent.kind` calls it."""
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    written: list[str] = []

    def text(body: str) -> str:
        name = f"mine_{tmp_path.name}_{len(written)}".replace("-", "_")
        written.append(name)
        Path(f"{name}.py").write_text(HEAD + body)
        return f"{name}:Mine"

    yield text
    sys.path[:] = path
    for name in written:
        sys.modules.pop(name, None)


def asked(kind: str) -> Decision:
    settings = settings_of(f"agent.kind={kind}")
    return decide(build_agent(settings), SEEN, settings)[0]


def test_a_decision_is_taken_and_a_mapping_too(write: Write) -> None:
    first = write("    def decide(self, seen): return Decision.to_train({1: 7}, 'one')\n")
    other = write("    def decide(self, seen): return {'participants': [1], 'steps': {1: 7}}\n")
    assert asked(first).steps == asked(other).steps == {1: 7}


def test_options_are_the_arguments_of_the_class(write: Write) -> None:
    kind = write(
        "    def __init__(self, steps): self.steps = steps\n"
        "    def decide(self, seen): return Decision.to_train({0: self.steps}, 'mine')\n"
    )
    settings = settings_of(f"agent.kind={kind}", "agent.options=steps=4")
    assert build_agent(settings).decide(SEEN).steps == {0: 4}


def test_numbers_of_numpy_will_do_and_control_characters_do_not_reach_the_record(
    write: Write,
) -> None:
    kind = write(
        "    def decide(self, seen):\n        import numpy as np\n"
        "        return Decision.to_train({np.int64(2): np.int64(5)}, 'a\\x1b[31mb\\nc')\n"
    )
    decision = asked(kind)
    assert decision.steps == {2: 5}
    assert decision.reason.isprintable()


def test_what_breaks_the_runs_limits_is_bounded_with_a_note(write: Write) -> None:
    kind = write("    def decide(self, seen): return Decision.to_train({0: 999, 9: 3}, 'x')\n")
    settings = settings_of(f"agent.kind={kind}")
    decision, notes, _ = decide(build_agent(settings), SEEN, settings)
    assert decision.steps == {0: 50}
    assert notes == [
        "unknown or repeated participants dropped",
        "client 0: 999 steps bounded to 50",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    def decide(self, seen):\n        return 1 / 0\n", "line 5 raises ZeroDivisionError"),
        (
            "    def decide(self, seen): return 3\n",
            "decide returns 3; accepted: a Decision, or",
        ),
        ("    def decide(self, seen): pass\n", "decide returns None; accepted: a Decision"),
        ("    def decide(self, seen): return {'steps': 3}\n", "decide returns participants: Field"),
        (
            "    def decide(self, seen): return {'participants': 'a', 'steps': {}}\n",
            "decide returns participants: Input should be a valid tuple",
        ),
        (
            "    def decide(self, seen): return Decision.to_train({0: 1.5}, '')\n",
            "line 4 raises ValidationError",
        ),
        ("    def decide(self): pass\n", "raises TypeError"),
        ("    x = 1\n", "an object without decide; accepted: an object or class with decide"),
        ("    def __init__(self, a): pass\n", "raises TypeError: .*missing 1 required pos.*'a'"),
        (
            "    def decide(self, seen): return Decision.to_stop(str(seen.losses[-1]))\n",
            "line 4 raises IndexError",
        ),
    ],
)
def test_a_bad_agent_is_one_line_before_anything_starts(
    write: Write, body: str, message: str
) -> None:
    kind = write(body)
    with pytest.raises(SettingsError, match=message) as caught:
        find_agent(settings_of(f"agent.kind={kind}"))
    assert f"agent.kind = {kind!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_asks_a_model_is_not_tried(write: Write) -> None:
    kind = write("    asks_model = True\n    def decide(self, seen): raise OSError('costs')\n")
    settings = settings_of(f"agent.kind={kind}")
    assert find_agent(settings) == kind
    with pytest.raises(SettingsError, match=r"line 5 raises OSError: costs"):
        decide(build_agent(settings), SEEN, settings)


def test_trying_an_object_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counts:
        name = "counter"
        calls = 0

        def decide(self, observation: Any) -> Decision:
            self.calls += 1
            return Decision.to_train({0: 1}, "")

    monkeypatch.setattr(registry, "_registered", {})
    counts = registry.register("agent", "counts", Counts())
    assert find_agent(settings_of("agent.kind=counts")) == "counter"
    assert counts.calls == 0


def test_made_up_observations_are_of_the_runs_own_limits() -> None:
    settings = settings_of("run.clients=3", "train.steps=4", "agent.circuit_prices=1,2,3")
    first, later = rehearsal(settings)
    assert (first.round, later.round, first.losses, len(later.losses)) == (1, 2, (), 1)
    assert [one.circuit_price for one in first.clients] == [1, 2, 3]
    assert all(one.steps == first.plain_steps == 4 for one in later.clients)


# --- what it declares ---


def declaring(write: Write, text: str) -> str:
    return write(
        f"    {text}\n    def decide(self, seen): return Decision.to_train({{0: 1}}, '')\n"
    )


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("x = 1", "agent.fraction=0.5", "agent.fraction = 0.5 would be ignored because agent.kind"),
        (
            "may_stop = False",
            "stop.patience=0 stop.min_rounds=3",
            "ignored because nothing stops the run",
        ),
        ("needs_credit = True", "privacy.dp=local", "with privacy.dp = 'local'; .*credit is made"),
        (
            "needs_llm = True",
            "llm.model=none distill.weight=0",
            "with llm.model = 'none'; .*needs",
        ),
        ("x = 1", "agent.options=a", r"agent.options = 'a' with the part 'a'; accepted: key=val"),
    ],
)
def test_what_it_does_not_declare_is_refused(
    write: Write, text: str, given: str, message: str
) -> None:
    kind = declaring(write, text)
    with pytest.raises(SettingsError, match=message):
        settings_of(f"agent.kind={kind}", *given.split())


def test_what_it_declares_is_taken(write: Write) -> None:
    kind = declaring(write, "uses, fixed_steps, sees_credit = ('agent.fraction',), True, True")
    settings = settings_of(f"agent.kind={kind}", "agent.fraction=0.5", "stop.min_rounds=3")
    assert worst_steps(settings, ["exact"]) == settings.train.steps
    assert agent_declares(settings, "sees_credit")
    plain = settings_of("agent.kind=all", "distill.weight=0")
    own = settings_of(f"agent.kind={kind}", "distill.weight=0")
    assert (fine_tunes_llm(plain), fine_tunes_llm(own)) == (False, True)


def test_options_of_an_agent_that_ships_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"agent.options = 'a=1' would be ignored because"):
        settings_of("agent.options=a=1")


# --- in a run ---


def test_a_run_with_ones_own_agent_gives_the_same_as_ours(federate: Federate, write: Write) -> None:
    kind = write(
        "    def decide(self, seen):\n"
        "        return Decision.to_train({v.client: v.steps for v in seen.clients}, 'all')\n"
    )
    given = ("llm.model=none", f"llm.epochs={FIELDS['llm.epochs'].default}", "distill.weight=0")
    ours = federate(*given, "agent.kind=all")
    own = federate(*given, f"agent.kind={kind}")
    assert [e["loss"] for e in own.events("round")] == [e["loss"] for e in ours.events("round")]
    assert own.summary["agent"]["name"] == kind
    name, found, damaged = audit(own.folder)
    assert (name, damaged, [one.differs for one in found]) == (kind, [], [(), ()])


ANY = st.integers(-5, 200)
STEPS = st.dictionaries(st.integers(-2, 5), ANY, max_size=5)


@hypothesis.settings(max_examples=60)
@given(
    st.lists(st.integers(-2, 5), max_size=6),
    STEPS,
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 600),
)
def test_whatever_is_decided_the_runs_limits_hold(
    participants: list[int], steps: dict[int, int], stop: bool, quorum: int, left: int
) -> None:
    answer = {"participants": participants, "steps": steps, "stop": stop}
    agent = OwnAgent(type("Any", (), {"decide": lambda self, seen: answer})(), "any:Any")
    settings, _ = parse_run(
        [],
        [f"run.min_replies={quorum}", "stop.min_rounds=2", "run.clients=4", "stop.circuits=9999"],
    )
    views = [view(k, circuits_per_step=7, circuits_fixed=5) for k in range(4)]
    observation = seen(views, losses=(0.5,), accuracies=(0.5,), circuits_left=left)
    found, _, _ = decide(agent, observation, settings)
    if found.stop:  # never the agent's own, before stop.min_rounds: the budget's
        assert left < quorum * (5 + 2 * 7)
        return
    assert quorum <= len(found.participants) == len(set(found.participants))
    assert set(found.participants) <= {0, 1, 2, 3}
    assert set(found.steps) == set(found.participants)
    assert all(2 <= count <= 50 for count in found.steps.values())
    assert sum(5 + 7 * count for count in found.steps.values()) <= left
    assert guard(found, observation, settings)[0].steps == found.steps  # bounding twice is once
