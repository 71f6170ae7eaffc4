from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import Settings
from strategies import stop_reason
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.guard import (
    OVERRULED,
    change_below,
    decide,
    gap_below,
    guard,
    out_of_patience,
)
from tests.strategies.agents.observations import seen, settings_of, view

DONE: dict[str, Any] = {
    "losses": (0.9, 0.6, 0.5),
    "accuracies": (0.5, 0.7, 0.8),
    "alignments": (0.30, 0.20, 0.19),
    "llm_loss": 0.3,
}


def bounded(
    steps: dict[int, int], clients: list[ClientView], *given: str, **changes: Any
) -> tuple[dict[int, int], list[str]]:
    """Return the steps that the guard leaves of a decision, and its notes; no steps: it stops."""
    decision, notes = guard(
        Decision.to_train(steps, "so"), seen(clients, **changes), settings_of(*given)
    )
    assert decision.participants == tuple(sorted(decision.steps))
    assert decision.stop == (not decision.steps)
    return decision.steps, [decision.reason, *notes] if decision.stop else notes


def test_the_unknown_are_dropped_steps_bounded_and_an_empty_choice_filled() -> None:
    said = Decision(participants=(7, 0, 0), steps={0: 999})
    decision, notes = guard(said, seen([view(0), view(1)]), Settings())
    assert (decision.participants, decision.steps) == ((0,), {0: 50})
    assert notes[0] == "unknown or repeated participants dropped"
    assert notes[1:] == ["client 0: 999 steps bounded to 50"]
    assert bounded({}, [view(0)]) == ({0: 10}, ["nobody chosen: everybody trains"])


def test_an_early_stop_is_refused_and_a_late_one_accepted() -> None:
    said = Decision(participants=(0,), steps={0: 5}, stop=True, reason="enough")
    patient = settings_of("stop.min_rounds=3", "stop.patience=9")
    early, notes = guard(said, seen([view(0)]), patient)
    assert (early.stop, notes) == (False, ["no stop before 3 rounds"])
    late, _ = guard(said, seen([view(0)], **DONE), patient)
    assert late == Decision.to_stop("enough")


@pytest.mark.parametrize(
    ("left", "steps", "note"),
    [
        (1010, 10, None),
        (510, 5, "steps scaled by 0.50 to the 510 circuits left"),
        (150, 0, "the 150 circuits left do not pay for another round"),
    ],
)
def test_steps_fit_the_circuits_left(left: int, steps: int, note: str | None) -> None:
    clients = [view(0, circuits_per_step=100, circuits_fixed=10)]
    fitted, notes = bounded({0: 10}, clients, "stop.circuits=2000", circuits_left=left)
    assert fitted == ({0: steps} if steps else {})
    assert notes == [x for x in (note, None if steps else OVERRULED) if x]


@pytest.mark.parametrize(
    ("least", "chosen"), [(1, (1,)), (2, (1, 4)), (3, (1, 2, 4)), (5, (0, 1, 2, 3, 4))]
)
def test_participants_are_added_up_to_min_replies(least: int, chosen: tuple[int, ...]) -> None:
    clients = [
        view(0, standing=-0.5),
        view(1, circuits_fixed=9),
        view(2, circuits_fixed=5),
        view(3, circuits_fixed=5),
        view(4, standing=0.7, circuits_fixed=99),
    ]
    given = f"run.min_replies={least}", "run.clients=5"
    steps, notes = bounded({1: 4}, clients, *given)
    assert steps == {k: 4 if k == 1 else 10 for k in chosen}
    added = ", ".join(str(k) for k in chosen if k != 1)
    assert notes == ([f"clients added up to run.min_replies = {least}: {added}"] if added else [])
    few, _ = bounded({1: 4}, clients[:2], *given)
    assert len(few) == min(least, 2)


@pytest.mark.parametrize(
    ("agent", "least"),
    [
        (("agent.kind=bandit",), 6),  # of one group alone nothing is learnt
        (("agent.kind=all",), 3),  # sees no credit
        (("agent.kind=bandit", "run.min_replies=7"), 7),
    ],
)
def test_agents_that_live_on_credit_from_sums_have_two_groups(
    agent: tuple[str, ...], least: int
) -> None:
    secure = "privacy.secure_aggregation=true", "privacy.group_size=3", "run.clients=8"
    steps, notes = bounded({7: 10}, [view(k) for k in range(8)], *secure, *agent)
    assert len(steps) == least
    limit = "run.min_replies = 7" if least == 7 else f"the {least} that sums of groups need"
    assert notes[0].startswith(f"clients added up to {limit}: 0, 1")


@pytest.mark.parametrize(("chosen", "trained"), [((0, 1, 2), 3), ((0, 1, 7), 6)])
def test_one_group_trains_once_its_members_are_solved_for(
    chosen: tuple[int, ...], trained: int
) -> None:
    secure = "privacy.secure_aggregation=true", "privacy.group_size=3", "run.clients=8"
    views = [view(k, standing=None if k == 7 else 0.1) for k in range(8)]
    steps, _ = bounded(dict.fromkeys(chosen, 10), views, *secure, "agent.kind=bandit")
    assert len(steps) == trained


def test_uneven_steps_are_raised_to_the_fewest_and_the_larger_ones_pay() -> None:
    clients = [view(k, circuits_per_step=32) for k in (0, 1)]
    shown: dict[str, Any] = {"min_steps": 1, "max_steps": 100}
    steps, notes = bounded({0: 1, 1: 100}, clients, circuits_left=3000, **shown)
    assert steps == {0: 1, 1: 92}
    assert notes == ["steps scaled by 0.92 to the 3000 circuits left"]
    exact, _ = bounded({0: 1, 1: 100}, clients, circuits_left=64, **shown)
    assert exact == {0: 1, 1: 1}


EVERYBODY = {0: 10, 1: 10, 2: 10}
NO_ROUND = "the {} circuits left do not pay for another round"


@pytest.mark.parametrize(
    ("said", "left", "quorum", "steps", "notes"),
    [
        (
            EVERYBODY,
            100,
            1,
            {0: 3, 2: 3},
            [
                "clients 1 dropped: the 100 circuits left do not pay for them",
                "steps scaled by 0.30 to the 100 circuits left",
            ],
        ),
        (EVERYBODY, 60, 1, {0: 5}, None),
        (
            {1: 10},
            30,
            1,
            {0: 2},
            ["the 30 circuits left do not pay for those chosen: client 0 trains 2 steps"],
        ),
        (EVERYBODY, 24, 1, {}, [NO_ROUND.format(24), OVERRULED]),
        (EVERYBODY, 100, 2, {0: 3, 2: 3}, None),
        (EVERYBODY, 60, 2, {}, [NO_ROUND.format(60), OVERRULED]),  # two at the fewest cost 70
    ],
)
def test_the_costliest_are_dropped_before_a_run_ends(
    said: dict[int, int], left: int, quorum: int, steps: dict[int, int], notes: list[str] | None
) -> None:
    clients = [view(k, circuits_per_step=c, circuits_fixed=5) for k, c in enumerate((10, 100, 20))]
    fitted, why = bounded(said, clients, f"run.min_replies={quorum}", circuits_left=left)
    assert fitted == steps
    assert notes is None or why == notes


def test_shots_and_circuits_hold_together() -> None:
    clients = [view(k, circuits_per_step=10, shots_per_circuit=n) for k, n in enumerate((100, 1))]
    steps, notes = bounded({0: 10, 1: 10}, clients, circuits_left=150, shots_left=1500)
    assert steps == {1: 7}
    assert notes == [
        "steps scaled by 0.75 to the 150 circuits left",
        "clients 0 dropped: the 1500 shots left do not pay for them",
    ]


def test_what_the_limits_overrule_is_recorded() -> None:
    limits = "stop.target_accuracy=0.5", "stop.min_rounds=1"
    assert bounded({0: 99}, [view(0)], *limits, **DONE)[1][1:] == [OVERRULED]
    shown = seen([view(0)], **DONE)
    assert guard(Decision.to_stop(""), shown, settings_of(*limits))[1] == []
    dear = [view(0, circuits_per_step=100)]
    _, notes = bounded({0: 99}, dear, "stop.circuits=2000", circuits_left=150)
    assert notes[1:] == ["client 0: 99 steps bounded to 50", OVERRULED]


@pytest.mark.parametrize(
    ("clients", "reason"),
    [([view(0)], "budget of 9 circuits is spent"), ([], "the budget of every client is spent")],
)
def test_nobody_is_asked_where_the_answer_cannot_matter(
    clients: list[ClientView], reason: str
) -> None:
    class Unwanted:
        name = "unwanted"

        def decide(self, observation: Observation) -> Decision:
            raise AssertionError("it was asked")

    decided = decide(Unwanted(), seen(clients, circuits_left=0), settings_of("stop.circuits=9"))
    assert decided == (Decision.to_stop(reason), [], None)


LIMITED = settings_of("stop.circuits=100000")


@given(
    st.lists(st.integers(-3, 12), max_size=8),
    st.dictionaries(st.integers(-3, 12), st.integers(-100, 1000), max_size=8),
    st.booleans(),
    st.integers(0, 10**5),
)
def test_whatever_is_decided_the_limits_hold(
    chosen: list[int], steps: dict[int, int], stop: bool, left: int
) -> None:
    clients = [view(k, circuits_per_step=7 * k + 1, circuits_fixed=k) for k in range(5)]
    said = Decision(participants=tuple(chosen), steps=steps, stop=stop)
    decision, _ = guard(said, seen(clients, circuits_left=left), LIMITED)
    if decision.stop:
        assert decision.participants == ()
        return
    assert decision.participants
    assert set(decision.participants) == set(decision.steps) <= set(range(5))
    assert len(set(decision.participants)) == len(decision.participants)
    assert all(2 <= m <= 50 for m in decision.steps.values())
    assert sum(m * (7 * k + 1) + k for k, m in decision.steps.items()) <= left


def test_a_decision_takes_no_extra_keys() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Decision.model_validate({"participants": [0], "steps": {}, "note": "hi"})


# --- when a run ends --------------------------------------------------------------------------


def test_criteria_by_hand() -> None:
    assert not change_below([0.3], 1.0)
    assert change_below([0.3, 0.31], 0.02)
    assert not change_below([0.5, 0.25], 0.25)  # strictly below tau
    assert gap_below(0.5, 0.49, 0.02)
    assert not gap_below(0.5, None, 9.0)


def test_patience_counts_rounds_since_the_best() -> None:
    assert not out_of_patience([3, 2, 1], 1)
    assert out_of_patience([1, 2], 1)
    assert not out_of_patience([1, 2], 2)
    assert not out_of_patience([1, 2, 3, 4], 0)
    assert out_of_patience([1, 0.9999, 0.9998], 2, 0.001)
    assert not out_of_patience([1, 0.9999, 0.9988], 2, 0.001)
    assert not out_of_patience([], 3)


@pytest.mark.parametrize(
    ("given", "change", "message"),
    [
        (["stop.rule=change"], {}, "moved by 0.0100 < tau = 0.02"),
        (["stop.rule=either"], {}, "moved by 0.0100"),
        (["stop.rule=gap", "stop.tau=0.4"], {}, "|L_server - L_LLM| = 0.2000 < tau"),
        (["stop.rule=gap"], {}, ""),
        (["stop.rule=none"], {}, ""),
        (["stop.target_accuracy=0.8"], {}, "target accuracy 0.8 is reached"),
        (["stop.patience=1"], {"losses": (0.5, 0.6, 0.7)}, "no better validation loss for 1"),
        (["stop.circuits=100"], {"circuits_left": 0}, "budget of 100 circuits is spent"),
        (["stop.wall_seconds=9"], {"seconds_left": -1.0}, "budget of 9 seconds is spent"),
        (["stop.rule=change", "stop.min_rounds=4"], {}, ""),
    ],
)
def test_reasons(given: list[str], change: dict[str, Any], message: str) -> None:
    reason = stop_reason(seen([view(0)], **{**DONE, **change}), settings_of(*given))
    assert message in reason if message else reason == ""
