"""Runs of sites of unequal size: what the rounds hand on is known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from core import parse_run
from core.messages import (
    ADAPT,
    ARRAYS,
    METRICS,
    TRAIN,
    Parameters,
    pack_parameters,
    read_parameters,
)
from data import load_site
from llm_qfl.process import FIRST_NODE
from tests.conftest import NO_TEACHER, SMALL, Federate

Change = Callable[[Message], None]

UNEQUAL = (
    "data.partition=quantity",
    "data.alpha=1.5",
    "evaluation.keep=last",
    "aggregation.clip_radius=100",  # no update is moved: the plain weights are what is tested
    "privacy.min_rows=0",
    *NO_TEACHER,
)
LIAR = 1


@pytest.fixture(scope="module")
def rows() -> list[int]:
    """Return the sites' training rows, as the sites count them, not as the server believes."""
    settings, _ = parse_run([], [*SMALL, *UNEQUAL])
    found = [len(load_site(settings, client, 3)[1].train) for client in range(3)]
    assert len(set(found)) == 3
    return found


def watching(kind: str, change: Change | None = None) -> tuple[list[dict[int, Parameters]], Any]:
    """Record what each client sends in each round, as it trained it; the liar then changes it."""
    rounds: list[dict[int, Parameters]] = []

    def spoil(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == kind:
            client = order.metadata.dst_node_id - FIRST_NODE
            if not rounds or client in rounds[-1]:
                rounds.append({})
            rounds[-1][client] = read_parameters(reply)
            if client == LIAR and change is not None:
                change(reply)
        return reply

    return rounds, spoil


def by_rows(sent: dict[int, Parameters], weights: Mapping[int, float]) -> Parameters:
    total = sum(weights.values())
    return {
        name: np.asarray(sum(weights[k] * sent[k][name].astype(float) for k in weights) / total)
        for name in sent[0]
    }


def assert_model(ran: Any, expected: Parameters) -> None:
    model = load_file(ran.folder / "model.safetensors")
    assert {name for name in model if "projection" not in name} == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(model[name], array, atol=1e-6)


@pytest.mark.parametrize("rule", ["weighted", "uniform", "median", "trimmed-mean"])
def test_the_model_is_the_closed_form_of_what_the_sites_sent(
    federate: Federate, rows: list[int], rule: str
) -> None:
    rounds, spoil = watching(TRAIN)
    ran = federate(*UNEQUAL, f"aggregation.rule={rule}", spoil=spoil)
    sent = rounds[-1]
    assert [event["aggregated"] for event in ran.events("round")] == [[0, 1, 2]] * 2
    if rule in ("median", "trimmed-mean"):  # one of three is trimmed from each end
        expected = {name: np.median([sent[c][name] for c in sent], axis=0) for name in sent[0]}
    else:
        weights = dict(enumerate(rows)) if rule == "weighted" else dict.fromkeys(range(3), 1)
        expected = by_rows(sent, weights)
    assert_model(ran, expected)


def many_rows(reply: Message) -> None:
    metrics = reply.content.metric_records[METRICS]
    metrics["num-examples"] = metrics["rows"] = 10**9


def nine_times_its_rows(reply: Message) -> None:
    metrics: Any = reply.content.metric_records[METRICS]
    metrics["num-examples"] = metrics["rows"] = 9 * int(metrics["rows"])


def far_away(reply: Message) -> None:
    sent = read_parameters(reply)
    reply.content[ARRAYS] = pack_parameters({name: array + 1e6 for name, array in sent.items()})


@pytest.mark.parametrize("lie", [many_rows, nine_times_its_rows, far_away])
def test_a_lie_changes_nobodys_weight(federate: Federate, rows: list[int], lie: Change) -> None:
    """Whether it is dropped or its numbers are not believed: the true rows weigh."""
    rounds, spoil = watching(TRAIN, lie)
    ran = federate(*UNEQUAL, spoil=spoil)
    counted = ran.events("round")[-1]["aggregated"]
    assert {0, 2} <= set(counted)
    assert lie is not far_away or counted == [0, 2]
    assert_model(ran, by_rows(rounds[-1], {client: rows[client] for client in counted}))


def test_a_shared_adapter_is_averaged_by_rows(federate: Federate, rows: list[int]) -> None:
    rounds, spoil = watching(ADAPT)
    shared = ("distill.weight=0.3", "llm.federated=fedavg", "llm.rounds=1", "run.rounds=1")
    ran = federate(*UNEQUAL, *shared, spoil=spoil)
    expected = by_rows(rounds[-1], dict(enumerate(rows)))
    saved = load_file(ran.folder / "adapter.safetensors")
    for name, array in saved.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-6)


# --- test rows ----------------------------------------------------------------------------


def write_rows(path: Path, rows: int, seed: int, *, poisoned: bool = False) -> None:
    """Write sequences rich in GC or in AT; poisoned ones are of one letter, labels swapped."""
    rng = np.random.default_rng(seed)
    lines = ["text,label"]
    for row in range(rows):
        at = row % 2
        weights = (0.4, 0.1, 0.1, 0.4) if at else (0.1, 0.4, 0.4, 0.1)
        text = "".join(rng.choice(list("ACGT"), 60, p=weights))
        if poisoned:
            text, at = "ACGT"[row % 4] * 60, 1 - at
        lines.append(f"{text},{'at' if at else 'gc'}")
    path.write_text("\n".join(lines) + "\n")


OWN = (
    "data.source=csv",
    "data.kind=dna",
    "data.labels=gc,at",
    "data.train_rows=0",
    "data.test_rows=0",
    "data.server_rows=0",
    "train.class_weights=balanced",
    *NO_TEACHER,
)


@pytest.mark.parametrize("mode", ["federated", "central"])
def test_poisoned_test_rows_change_nothing_but_the_test(
    federate: Federate, tmp_path: Path, mode: str
) -> None:
    """No projection, class weight, decision or model knows anything of a test row."""

    def run(*, poisoned: bool) -> tuple[Any, list[Any]]:
        folder, orders = tmp_path / f"{mode}-{poisoned}", []
        folder.mkdir()
        for client in range(3):
            write_rows(folder / f"train-{client}.csv", 40 + 12 * client, client)
            write_rows(folder / f"test-{client}.csv", 16, 10 + client, poisoned=poisoned)

        def spoil(order: Message, reply: Message) -> Message:
            if order.metadata.message_type == TRAIN:
                orders.append(dict(order.content.config_records["config"]))
            return reply

        if mode == "federated":
            where = "{client}", ["data.per_site=true", "evaluation.mode=federated"]
        else:
            where = "0", []
        paths = [f"data.{key}={folder}/{name}-{where[0]}.csv" for key, name in NAMES]
        return federate(*OWN, *paths, *where[1], spoil=spoil), orders

    (clean, orders), (poisoned, other) = run(poisoned=False), run(poisoned=True)
    assert len(orders) == len(other) == 6
    assert {order["projection"] for order in orders} == {order["projection"] for order in other}
    assert [o["class_weights"] for o in orders] == [o["class_weights"] for o in other]
    models = [load_file(ran.folder / "model.safetensors") for ran in (clean, poisoned)]
    assert all(np.array_equal(models[0][name], models[1][name]) for name in models[0])
    for kind, numbers in (("client", ("loss", "accuracy")), ("round", ("loss", "accuracy"))):
        one, two = (
            [[event[key] for key in numbers] for event in ran.events(kind)]
            for ran in (clean, poisoned)
        )
        assert one == two
    assert clean.summary["test"]["accuracy"] > poisoned.summary["test"]["accuracy"]


NAMES = (("path", "train"), ("test_path", "test"))
