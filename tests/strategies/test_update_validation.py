"""Failures of a round: whose they are, and what they leave of an update."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from pydantic import ValidationError

from core import Cost
from core.flower_compat import set_task_identity
from core.messages import BUDGET_CODE, TRAIN
from strategies.decisions import Decision
from strategies.update_validation import Round, Update
from tests.strategies.test_state import trained

TEXT = "Traceback (last call last):\n  File a.py\nno space left\n"


def test_a_site_says_what_its_device_is_worth_only_where_that_is_requested() -> None:
    report = replace(trained(0.5, 0.5), weight=0.25)
    update = Update(1, {"angles": np.ones(2)}, report, Cost())
    assert update.weighing(80).weight == 80
    assert update.weighing(80, "noise").weight == 20


@pytest.mark.parametrize("weight", [1.0001, 0.0, 0.049, -0.1, float("nan"), float("inf")])
def test_no_site_buys_weight(weight: float) -> None:
    with pytest.raises(ValidationError, match="weight"):
        replace(trained(0.5, 0.5), weight=weight)


def begun() -> Round:
    return Round(1, Decision(participants=(0, 1), steps={0: 1, 1: 1}))


def test_a_dropped_update_keeps_its_cost_and_loses_its_parameters() -> None:
    now, report, cost = begun(), trained(0.5, 0.5), Cost(circuits=7)
    now.updates[1] = Update(1, {"angles": np.ones(2)}, report, cost)
    now.drop(1, "too long")
    assert now.updates == {1: Update(1, {}, report, cost, "too long")}
    assert now.failures == ["client 1: update dropped: too long"]


@pytest.mark.parametrize(
    ("brief", "quoted"),
    [
        (False, "Traceback (last call last): File a.py no space left"),
        (True, "no space left"),
    ],
)
def test_replies_that_do_not_count_are_failures_of_their_client(brief: bool, quoted: str) -> None:
    set_task_identity()
    messages = [Message(RecordDict(), node, TRAIN) for node in (1000, 1001, 7)]
    failed = Message(Error(BUDGET_CODE, TEXT), reply_to=messages[0])
    replies = [failed, *(Message(RecordDict(), reply_to=one) for one in messages[1:])]
    now = begun()
    found = list(now.answers(replies, {1000: 0, 1001: 1}.get, brief=brief))
    assert [client for client, _ in found] == [1]
    assert now.failures == [f"client 0: {quoted}", "a lost node: unknown node"]
    assert (now.failed, now.exhausted) == ({0}, {0})
