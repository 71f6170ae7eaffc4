from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import Settings, parse_run
from strategies import build_agent
from strategies.agents import ClientView, Decision, Observation
from strategies.agents.guard import OVERRULED, decide, guard


def view(client: int, **changes: Any) -> ClientView:
    return ClientView(**{"client": client, "rows": 10, "steps": 10, **changes})


def seen(clients: list[ClientView], **changes: Any) -> Observation:
    base = {"round": 2, "rounds_left": 9, "min_steps": 2, "max_steps": 50}
    return Observation(**{**base, "clients": tuple(clients), **changes})


def settings_of(*given: str) -> Settings:
    return parse_run([], list(given))[0]


def test_first_round_everybody_trains_with_the_first_steps() -> None:
    agent = build_agent(settings_of("agent.fraction=0.3"))
    decided = agent.decide(seen([view(0), view(1), view(2)], round=1))
    assert decided.participants == (0, 1, 2)
    assert decided.steps == {0: 10, 1: 10, 2: 10}


def test_rule_agent_regulates_by_ratio_and_selects_by_distance() -> None:
    agent = build_agent(settings_of("agent.fraction=0.5"))
    clients = [
        view(0, loss=0.9, gap=0.4, llm_loss=0.3, ratio=3.0),
        view(1, loss=0.5, gap=0.0, llm_loss=0.4, ratio=1.25),
        view(2, loss=0.52, gap=0.02, llm_loss=0.6, ratio=0.87),
    ]
    decided = agent.decide(seen(clients, losses=(0.5,), accuracies=(0.6,), alignments=(0.1,)))
    assert decided.participants == (1, 2)
    assert decided.steps == {1: 12, 2: 10}
    assert "1 of 2 behind their LLM" in decided.reason


def test_aggregation_stage_lets_everybody_train() -> None:
    agent = build_agent(settings_of("agent.fraction=0.5", "agent.stage=aggregation"))
    clients = [view(0, loss=0.9, gap=0.4), view(1, loss=0.5, gap=0.0)]
    decided = agent.decide(seen(clients, losses=(0.5,), accuracies=(0.6,), alignments=(0.1,)))
    assert decided.participants == (0, 1)


def test_random_agent_repeats_itself_and_no_other_round() -> None:
    agent = build_agent(settings_of("agent.kind=random", "agent.fraction=0.25"))
    clients = [view(k) for k in range(8)]
    drawn = [agent.decide(seen(clients, round=r)).participants for r in range(1, 20)]
    assert drawn == [agent.decide(seen(clients, round=r)).participants for r in range(1, 20)]
    assert {len(chosen) for chosen in drawn} == {2}
    assert len(set(drawn)) > 5


def test_all_agent_is_plain_federated_learning() -> None:
    agent = build_agent(settings_of("agent.kind=all"))
    decided = agent.decide(seen([view(0, loss=0.9, llm_loss=0.3, ratio=3.0), view(1)]))
    assert decided.steps == {0: 10, 1: 10}


def test_guard_drops_the_unknown_bounds_steps_and_fills_an_empty_choice() -> None:
    said = Decision(participants=(7, 0, 0), steps={0: 999})
    bounded, notes = guard(said, seen([view(0), view(1)]), Settings())
    assert bounded.participants == (0,)
    assert bounded.steps == {0: 50}
    assert len(notes) == 2
    bounded, notes = guard(Decision(participants=(), steps={}), seen([view(0)]), Settings())
    assert bounded.participants == (0,)
    assert notes == ["nobody chosen: everybody trains"]


def test_guard_refuses_an_early_stop_and_accepts_a_late_one() -> None:
    said = Decision(participants=(0,), steps={0: 5}, stop=True, reason="enough")
    early, notes = guard(said, seen([view(0)]), settings_of("stop.min_rounds=3", "stop.patience=9"))
    assert not early.stop
    assert notes == ["no stop before 3 rounds"]
    late, _ = guard(
        said,
        seen([view(0)], losses=(1.0,) * 3, accuracies=(0.5,) * 3, alignments=(0.1,) * 3),
        settings_of("stop.min_rounds=3", "stop.patience=9"),
    )
    assert late.stop
    assert late.reason == "enough"


def test_guard_keeps_to_the_circuits_left() -> None:
    clients = [view(0, circuits_per_step=100, circuits_fixed=10)]
    said = Decision(participants=(0,), steps={0: 10})
    fits, notes = guard(said, seen(clients, circuits_left=1010), settings_of("stop.circuits=2000"))
    assert fits.steps == {0: 10}
    assert notes == []
    cut, notes = guard(said, seen(clients, circuits_left=510), settings_of("stop.circuits=2000"))
    assert cut.steps == {0: 5}
    assert "steps scaled by 0.50" in notes[0]
    over, _ = guard(said, seen(clients, circuits_left=150), settings_of("stop.circuits=2000"))
    assert over.stop
    assert "do not pay for another round" in over.reason


def test_guard_adds_participants_up_to_min_replies() -> None:
    clients = [
        view(0, standing=-0.5),
        view(1, circuits_fixed=9),
        view(2, circuits_fixed=5),
        view(3, circuits_fixed=5),
        view(4, standing=0.7, circuits_fixed=99),
    ]
    said = Decision(participants=(1,), steps={1: 4})
    for least, chosen in ((1, (1,)), (2, (1, 4)), (3, (1, 2, 4)), (5, (0, 1, 2, 3, 4))):
        bounded, notes = guard(
            said, seen(clients), settings_of(f"run.min_replies={least}", "run.clients=5")
        )
        assert bounded.participants == chosen
        assert bounded.steps == {k: 4 if k == 1 else 10 for k in chosen}
        added = ", ".join(str(k) for k in chosen if k != 1)
        expected = [f"clients added up to run.min_replies = {least}: {added}"] if added else []
        assert notes == expected
    few, _ = guard(said, seen(clients[:2]), settings_of("run.min_replies=3", "run.clients=5"))
    assert few.participants == (0, 1)


def test_uneven_steps_are_held_at_the_fewest_and_the_larger_ones_pay() -> None:
    clients = [view(k, circuits_per_step=32) for k in (0, 1)]
    said = Decision(participants=(0, 1), steps={0: 1, 1: 100})
    shown = seen(clients, circuits_left=3000, min_steps=1, max_steps=100)
    bounded, notes = guard(said, shown, settings_of("stop.circuits=9000"))
    assert bounded.steps == {0: 1, 1: 92}
    assert notes == ["steps scaled by 0.92 to the 3000 circuits left"]
    exact, _ = guard(said, shown.model_copy(update={"circuits_left": 64}), settings_of())
    assert exact.steps == {0: 1, 1: 1}


def test_the_costliest_are_dropped_before_a_run_ends() -> None:
    clients = [
        view(0, circuits_per_step=10, circuits_fixed=5),
        view(1, circuits_per_step=100, circuits_fixed=5),
        view(2, circuits_per_step=20, circuits_fixed=5),
    ]
    everybody = Decision(participants=(0, 1, 2), steps={0: 10, 1: 10, 2: 10})
    dear = Decision(participants=(1,), steps={1: 10})
    at = {left: seen(clients, circuits_left=left) for left in (100, 60, 30, 24)}  # min_steps 2
    bounded, notes = guard(everybody, at[100], settings_of())
    assert bounded.steps == {0: 3, 2: 3}
    assert notes == [
        "clients 1 dropped: the 100 circuits left do not pay for them",
        "steps scaled by 0.30 to the 100 circuits left",
    ]
    bounded, _ = guard(everybody, at[60], settings_of())
    assert bounded.steps == {0: 5}
    bounded, notes = guard(dear, at[30], settings_of())
    assert bounded.steps == {0: 2}
    assert notes == ["the 30 circuits left do not pay for those chosen: client 0 trains 2 steps"]
    over, notes = guard(everybody, at[24], settings_of())
    assert over.stop
    assert over.reason == "the 24 circuits left do not pay for another round"
    assert notes == [OVERRULED]
    two = settings_of("run.min_replies=2")
    bounded, _ = guard(everybody, at[100], two)
    assert bounded.steps == {0: 3, 2: 3}
    assert guard(everybody, at[60], two)[0].stop  # two at the fewest steps cost 70


def test_shots_and_circuits_hold_together() -> None:
    clients = [
        view(0, circuits_per_step=10, shots_per_circuit=100),
        view(1, circuits_per_step=10, shots_per_circuit=1),
    ]
    shown = seen(clients, circuits_left=150, shots_left=1500)
    said = Decision(participants=(0, 1), steps={0: 10, 1: 10})
    bounded, notes = guard(said, shown, settings_of())
    assert bounded.steps == {1: 7}
    assert notes == [
        "steps scaled by 0.75 to the 150 circuits left",
        "clients 0 dropped: the 1500 shots left do not pay for them",
    ]


def test_what_the_limits_overrule_is_on_record() -> None:
    limits = settings_of("stop.target_accuracy=0.5", "stop.min_rounds=1")
    shown = seen([view(0)], losses=(0.5,), accuracies=(0.9,), alignments=(0.1,))
    goes_on = Decision(participants=(0,), steps={0: 99}, reason="more")
    over, notes = guard(goes_on, shown, limits)
    assert (over.stop, notes) == (True, [OVERRULED])
    assert guard(Decision(participants=(), steps={}, stop=True), shown, limits)[1] == []
    poor = seen([view(0, circuits_per_step=100)], circuits_left=150)
    _, notes = guard(goes_on, poor, settings_of("stop.circuits=2000"))
    assert notes == ["client 0: 99 steps bounded to 50", OVERRULED]


def test_nobody_is_asked_where_the_answer_cannot_matter() -> None:
    class Dear:
        name = "dear"

        def decide(self, observation: Observation) -> Decision:
            raise AssertionError("it was asked")

    shown = seen([view(0)], circuits_left=0)
    decision, notes, asked = decide(Dear(), shown, settings_of("stop.circuits=9"))
    assert decision.reason == "budget of 9 circuits is spent"
    assert (decision.stop, notes, asked) == (True, [], None)


@given(
    st.lists(st.integers(-3, 12), max_size=8),
    st.dictionaries(st.integers(-3, 12), st.integers(-100, 1000), max_size=8),
    st.booleans(),
    st.integers(0, 10**5),
)
def test_whatever_is_said_the_limits_hold(
    chosen: list[int], steps: dict[int, int], stop: bool, left: int
) -> None:
    clients = [view(k, circuits_per_step=7 * k + 1, circuits_fixed=k) for k in range(5)]
    shown = seen(clients, circuits_left=left)
    said = Decision(participants=tuple(chosen), steps=steps, stop=stop)
    bounded, _ = guard(said, shown, settings_of("stop.circuits=100000"))
    if bounded.stop:
        assert bounded.participants == ()
        return
    assert bounded.participants
    assert len(set(bounded.participants)) == len(bounded.participants)
    assert set(bounded.participants) <= set(range(5)) == {v.client for v in clients}
    assert all(2 <= bounded.steps[k] <= 50 for k in bounded.participants)
    price = sum(bounded.steps[k] * (7 * k + 1) + k for k in bounded.participants)
    assert price <= left


def test_a_decision_takes_no_extra_keys() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Decision.model_validate({"participants": [0], "steps": {}, "note": "hi"})
