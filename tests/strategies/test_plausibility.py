"""What a client may declare: bounds by hand, seconds cut to the clock, moments of real rows."""

from __future__ import annotations

from typing import Any

import pytest

from core import parse_run
from core.messages import EvaluateReport, TrainReport
from strategies.plausibility import (
    Limits,
    check_evaluation,
    check_training,
    most_tokens,
    within_time,
)
from tests.strategies.test_state import begin

LIMITS = Limits(rows=10, circuits=40, shots=100, tokens=500)


def trained(**numbers: float) -> TrainReport:
    zeros = {**dict.fromkeys(TrainReport.__dataclass_fields__, 0), "weight": 1.0}
    return TrainReport(**{**zeros, "rows": 10, "round": 2, "steps": 3, **numbers})  # type: ignore[arg-type]


def evaluated(**numbers: object) -> EvaluateReport:
    zeros = dict.fromkeys(EvaluateReport.__dataclass_fields__, 0)
    empty: dict[str, Any] = {"logistic_projected": [], "logistic_full": []}
    fields = {**zeros, **empty, "rows": 10, "confusion": [5, 1, 1, 3], "circuits": 10, **numbers}
    return EvaluateReport(**fields)  # type: ignore[arg-type]


def test_bounds_are_what_the_instruction_can_cost() -> None:
    full = {"circuits": 40, "shots": 4000, "jobs": 40, "two_qubit_gates": 40 * 10**6}
    assert check_training(trained(**full, qpu_seconds=40 * 600.0 + 40.0), 2, 3, LIMITS) == ""
    assert check_training(trained(shots=1), 2, 3, LIMITS) == "1 shots of 0"
    assert check_training(trained(llm_cut=11), 2, 3, LIMITS) == "11 texts cut of 10"
    assert check_training(trained(rows=11), 2, 3, LIMITS) == "11 rows instead of 10"
    assert check_training(trained(steps=4), 2, 3, LIMITS) == "steps 4 instead of at most 3"
    assert check_training(trained(), 3, 3, LIMITS) == "it answers round 2"
    assert check_training(trained(), 2, None, LIMITS) == "it was not to train"
    assert check_evaluation(evaluated(), 2, LIMITS) == ""
    assert check_evaluation(evaluated(rows=9), 2, LIMITS) == "9 rows instead of 10"
    assert check_evaluation(evaluated(circuits=2**50), 2, LIMITS) == f"{2**50} circuits of 40"
    assert "adding up to 11" in check_evaluation(evaluated(confusion=[5, 1, 1, 4]), 2, LIMITS)
    assert "of 9 numbers" in check_evaluation(evaluated(logistic_full=[0] * 8 + [10]), 2, LIMITS)


def test_limits_follow_from_the_preparation_and_what_is_owed() -> None:
    state, chosen = begin(), parse_run([], ["distill.folds=4", "llm.epochs=2"])[0]
    limits = state.training_limits(0, 3, chosen)
    assert limits == Limits(10, 5 + 3 * 7, 0, 10 * 256 * 2 * 4)
    assert most_tokens(state.members[1].about, chosen) == 20 * 256 * 2 * 4
    assert state.evaluation_limits(0, "validation") == Limits(5, 5, 0)
    state.settle({0: 3}, failed={0}, exhausted=set())
    assert state.evaluation_limits(0, "test") == Limits(0, 26, 0)  # those of a failed message


def test_seconds_are_cut_to_the_clock_and_said() -> None:
    sent = trained(train_seconds=50.0, llm_seconds=5.0, queue_seconds=60.0, jobs=2)
    assert within_time(sent, 50.0, 30.0) == (sent, "")
    cut, reason = within_time(sent, 10.0, 20.0)
    assert [cut.train_seconds, cut.llm_seconds] == pytest.approx([11.1, 5.0])
    assert cut.queue_seconds == 40.0
    assert reason == "train_seconds = 50 cut to 11, queue_seconds = 60 cut to 40"
