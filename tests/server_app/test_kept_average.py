"""Whole runs that keep the average of their last rounds, and halve the rate where nothing falls."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from core.messages import TRAIN
from tests.conftest import NO_TEACHER, Federate

LARGE_STEPS = ("run.rounds=4", "evaluation.keep=average", "train.learning_rate=0.5", *NO_TEACHER)
"""Rounds that overshoot, each to another side: their mean is better than any of them."""


def mean_of_rounds(ran: Any, rounds: list[int]) -> dict[str, Any]:
    folders = [ran.folder / "checkpoint" / f"round-{number:03d}" for number in rounds]
    models = [load_file(folder / "model.safetensors") for folder in folders]
    return {name: np.mean([one[name] for one in models], axis=0) for name in models[0]}


def is_average(ran: Any) -> bool:
    """Whether the run kept the mean of its last rounds; what it says of that must be true."""
    summary = ran.summary
    losses = {event["round"]: event["loss"] for event in ran.events("round")}
    assert losses[summary["best_round"]] == min(losses.values())
    model = load_file(ran.folder / "model.safetensors")
    if not summary["averaged_rounds"]:
        assert summary["validation"]["loss"] == pytest.approx(min(losses.values()))
        return False
    assert summary["averaged_rounds"] == [3, 4]
    assert summary["validation"]["loss"] <= min(losses.values())
    for name, array in mean_of_rounds(ran, [3, 4]).items():
        np.testing.assert_allclose(model[name], array, rtol=1e-6)
    return True


def test_the_average_of_the_last_rounds_is_kept_where_it_is_better(federate: Federate) -> None:
    found = {is_average(federate(*LARGE_STEPS, f"run.seed={seed}")) for seed in range(4)}
    assert found == {True, False}


FEDERATED = ("evaluation.mode=federated", "data.server_rows=0")


def test_the_sites_evaluate_the_average_for_one_evaluation_more(federate: Federate) -> None:
    averaged = federate(*LARGE_STEPS, *FEDERATED)
    best = federate(*LARGE_STEPS, *FEDERATED, "evaluation.keep=best")
    is_average(averaged)
    held = sum(client["val_rows"] for client in averaged.events("prepared")[0]["clients"])
    circuits = [one.summary["ledger"]["circuits"] for one in (averaged, best)]
    assert circuits[0] - circuits[1] == held > 0
    entries = json.loads((averaged.folder / "ledger.json").read_text())["entries"]
    assert [e["circuits"] for e in entries if e["round"] == 5] == [held // 3] * 3


def test_a_budget_that_does_not_pay_for_the_average_keeps_the_best_round(
    federate: Federate,
) -> None:
    budget = federate(*LARGE_STEPS, *FEDERATED, "evaluation.keep=best").summary["ledger"]
    short = f"stop.circuits={budget['circuits'] + 1}"
    ran = federate(*LARGE_STEPS, *FEDERATED, short)
    assert ran.summary["averaged_rounds"] == []
    assert ran.summary["ledger"]["circuits"] == budget["circuits"]


def test_the_rate_that_is_left_travels_to_the_sites(federate: Federate) -> None:
    """With a wait so long nothing is halved; the models part where the first rate is."""
    given = (
        *(*LARGE_STEPS, "run.rounds=6", "evaluation.keep=last"),
        *("train.schedule=plateau", "stop.min_gain=0"),
    )
    rates, halving = rates_and_run(federate, *given)
    never, steady = rates_and_run(federate, *given, "train.plateau_rounds=9")
    losses = [event["loss"] for event in halving.events("round")]
    left, lowest, expected = 1.0, losses[0], [1.0, 1.0]
    for loss in losses[1:-1]:
        left, lowest = left / (2 if loss > lowest else 1), min(loss, lowest)
        expected.append(left)
    assert rates == dict(enumerate(expected, start=1))
    assert set(never.values()) == {1.0}
    first = expected.index(0.5)
    other = [event["loss"] for event in steady.events("round")]
    assert losses[:first] == pytest.approx(other[:first])
    assert abs(losses[first] - other[first]) > 1e-4


def rates_and_run(federate: Federate, *given: str) -> tuple[dict[int, float], Any]:
    """Return the rate that the sites were sent in each round, and the run."""
    sent: dict[int, float] = {}

    def spoil(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == TRAIN:
            config: Any = order.content.config_records["config"]
            assert sent.setdefault(config["round"], config["rate"]) == config["rate"]
        return reply

    return sent, federate(*given, spoil=spoil)
