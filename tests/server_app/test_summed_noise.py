"""Noise of a sum: each site adds a part, and what the server opens carries all of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import Message

from bench.grid import Spoil
from client_app.private_rows import site_deviation
from core import UserError, parse_run
from core.accounting import epsilon
from tests.conftest import NO_TEACHER, Federate
from tests.server_app.test_privacy_budget import TINY_ROWS
from tests.server_app.test_secure_runs import client_of, model

SUMMED = ("privacy.dp=summed", "privacy.secure_aggregation=true", "privacy.seeded=true")
ONCE = ("run.clients=6", "run.rounds=1", "train.steps=1", "evaluation.keep=last")
CLIENTS = (*NO_TEACHER, *SUMMED, *ONCE, "aggregation.rule=uniform", "privacy.clip=0.5")
BY_ROWS = (*TINY_ROWS, *SUMMED, *ONCE, "train.max_steps=1", "train.optimizer=descent")


def gone(order: Message, reply: Message) -> Message | None:
    return None if order.metadata.message_type == "train" and client_of(order) < 2 else reply


def test_a_part_is_such_that_as_many_as_must_answer_make_the_whole() -> None:
    settings, _ = parse_run([], [*CLIENTS, "privacy.noise=3"])
    assert site_deviation(settings, 4) * math.sqrt(4) == pytest.approx(3 * 0.5)
    local, _ = parse_run([], ["privacy.dp=local", "privacy.noise=3", "privacy.clip=0.5"])
    assert site_deviation(local, 4) == 3 * 0.5
    with pytest.raises(ValueError, match="without a group to sum in"):
        site_deviation(settings, 0)


@pytest.mark.parametrize("lost", [0, 2])
def test_the_sum_of_clipped_updates_carries_all_of_the_noise(federate: Federate, lost: int) -> None:
    """Of six sites with a threshold of four; two may be lost."""
    spoil: Spoil = gone if lost else (lambda order, reply: reply)
    plain, noised = (
        federate(*CLIENTS, f"privacy.noise={noise}", spoil=spoil) for noise in ("1e-9", "8")
    )
    moved = model(noised, 1) - model(plain, 1)
    there = 6 - lost
    assert noised.events("round")[0]["aggregated"] == list(range(lost, 6))
    assert moved.std() == pytest.approx(8 * 0.5 * math.sqrt(there / 4) / there, rel=0.25)
    spent = noised.summary["privacy"]["updates"]
    assert (spent["dp"], spent["epsilon"]) == ("summed", epsilon({8.0: 1}, 1e-5))


def test_the_sum_of_all_rows_gradients_carries_all_of_the_noise(federate: Federate) -> None:
    given = (*BY_ROWS, "train.learning_rate=1", "privacy.clip=0.5")
    plain, noised = (federate(*given, f"privacy.noise={noise}") for noise in ("1e-9", "100"))
    rows = sum(client["train_rows"] for client in plain.events("prepared")[0]["clients"])
    moved = model(noised, 1) - model(plain, 1)
    assert moved.std() == pytest.approx(100 * 0.5 * math.sqrt(6 / 4) / rows, rel=0.25)
    assert noised.summary["privacy"]["updates"]["epsilon"] == epsilon({50.0: 1}, 1e-5)
    assert np.abs(model(plain, 1) - model(plain, 0)).max() > 0


UNEQUAL = ("data.partition=quantity", "data.alpha=0.3")


@pytest.mark.parametrize(
    ("most", "refused"),
    [
        ("1.1", r"client \d has [\d,]+ training rows, of which [\d,]+ count"),
        ("1e9", r"client \d has [\d,]+ training rows, another [\d,]+: in a sum its weight might"),
    ],
)
def test_sites_whose_rows_do_not_all_count_are_refused(
    federate: Federate, most: str, refused: str
) -> None:
    """Their noise would be cut with their weight, and epsilon be higher than reported."""
    with pytest.raises(UserError, match=refused):
        federate(*BY_ROWS, *UNEQUAL, f"aggregation.max_weight={most}", "privacy.noise=100")
