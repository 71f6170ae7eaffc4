"""What a setting changes shows in a whole run: in its costs, its messages, its model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from core.messages import TRAIN
from tests.conftest import NO_TEACHER, Federate


def first_round(ran: Any) -> list[dict[str, Any]]:
    """Return the ledger's entries of round 1; each client has 32 training and 8 validation rows."""
    entries = json.loads((ran.folder / "ledger.json").read_text())["entries"]
    return [entry for entry in entries if entry["round"] == 1]


def trains_a_vqc_with_cobyla(ran: Any, plain: Any) -> None:
    prepared = ran.events("prepared")[0]
    assert prepared["model"].startswith("VQC")
    assert prepared["features"].endswith("-> 4 (pca)")
    # The start is evaluated besides the three steps.
    assert [entry["circuits"] for entry in first_round(ran)] == [(1 + 3) * 32 + 8] * 3


def draws_directions_and_forgets_the_teacher(ran: Any, plain: Any) -> None:
    prepared = ran.events("prepared")[0]
    assert prepared["features"].endswith("-> 4 (random)")
    assert prepared["angles"] < plain.events("prepared")[0]["angles"]
    model = load_file(ran.folder / "model.safetensors")
    assert model["angles"].shape == (prepared["angles"],)


def gives_classes_their_weights(ran: Any, plain: Any) -> None:
    held = np.array([c["class_rows"] for c in ran.events("prepared")[0]["clients"]])
    assert len({tuple(rows) for rows in held}) == 3
    assert held.sum(axis=0)[0] != held.sum(axis=0)[1]
    sent = {tuple(config["class_weights"]) for config in ran.orders}
    assert sent == {tuple(held.sum() / (2 * held.sum(axis=0)))}


def steps_take_eight_rows(ran: Any, plain: Any) -> None:
    angles = ran.events("prepared")[0]["angles"]
    for entry, client in zip(first_round(ran), ran.events("prepared")[0]["clients"], strict=True):
        assert (
            entry["circuits"]
            == 3 * min(8, client["train_rows"]) * (1 + 2 * angles) + client["val_rows"]
        )


def two_of_three_are_drawn(ran: Any, plain: Any) -> None:
    for event in ran.events("round"):
        assert len(event["participants"]) == 2
    assert {config["step_offset"] for config in ran.orders} <= {0, 3}


def is_the_exact_engines_model(ran: Any, plain: Any) -> None:
    models = [load_file(one.folder / "model.safetensors") for one in (ran, plain)]
    assert all(np.allclose(models[0][name], models[1][name], atol=1e-4) for name in models[0])


def all_train_and_two_count(ran: Any, plain: Any) -> None:
    rounds = ran.events("round")
    assert [len(event["participants"]) for event in rounds] == [3, 3]
    # Nobody's distance to the server's loss is known in round 1.
    assert [len(event["aggregated"]) for event in rounds] == [3, 2]
    assert ran.summary["best_round"] == 2


@pytest.mark.parametrize(
    ("given", "like", "check"),
    [
        (
            ["quantum.model=vqc", "train.optimizer=cobyla", "features.projection=pca"],
            [],
            trains_a_vqc_with_cobyla,
        ),
        (
            ["quantum.block=paper", "distill.weight=0", "features.projection=random"],
            [],
            draws_directions_and_forgets_the_teacher,
        ),
        (
            [
                "data.train_rows=111",
                "data.partition=dirichlet",
                "data.alpha=0.3",
                "train.class_weights=balanced",
                *NO_TEACHER,
            ],
            [],
            gives_classes_their_weights,
        ),
        (
            ["data.partition=quantity", "train.proximal=0.1", "train.batch_rows=8", *NO_TEACHER],
            [],
            steps_take_eight_rows,
        ),
        (
            ["train.schedule=inverse-time", "agent.kind=random", "agent.fraction=0.5"],
            [],
            two_of_three_are_drawn,
        ),
        (
            ["quantum.backend=pennylane:default.qubit", "train.steps=1"],
            ["quantum.precision=double", "train.steps=1"],
            is_the_exact_engines_model,
        ),
        (
            ["agent.fraction=0.4", "agent.stage=aggregation", "evaluation.keep=last"],
            [],
            all_train_and_two_count,
        ),
    ],
)
def test_settings_that_matter_show_in_the_run(
    federate: Federate,
    small_run: Any,
    given: list[str],
    like: list[str],
    check: Callable[[Any, Any], None],
) -> None:
    orders: list[dict[str, Any]] = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == TRAIN:
            orders.append(dict(order.content.config_records["config"]))
        return reply

    ran: Any = federate(*given, spoil=watch)
    ran.orders = orders
    check(ran, federate(*like) if like else small_run)
    assert not np.array_equal(
        load_file(ran.folder / "model.safetensors")["angles"],
        load_file(small_run.folder / "model.safetensors")["angles"],
    )
