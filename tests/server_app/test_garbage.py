"""A site that answers garbage is dropped with a reason; nothing of it reaches the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Message
from safetensors.numpy import load_file

from core.messages import ARRAYS, EVALUATE, TRAIN, pack_parameters, unpack_parameters
from tests.conftest import NO_TEACHER, Federate

Change = Callable[[dict[str, Any]], dict[str, Any]]

BIG = np.zeros(50_000_000 // 8)


def garbage(order: Message, reply: Message) -> Message | None:
    """Change what client 1 sends back of its training: in each round in another way."""
    if order.metadata.message_type == TRAIN and order.metadata.dst_node_id == 1001:
        change, _ = GARBAGE[int(order.metadata.group_id) - 1]
        sent = unpack_parameters(reply.content.array_records[ARRAYS])
        reply.content[ARRAYS] = pack_parameters(change(sent))
    return reply


def silent(order: Message, reply: Message) -> Message | None:
    mine = order.metadata.message_type == TRAIN and order.metadata.dst_node_id == 1001
    return None if mine else reply


GARBAGE: list[tuple[Change, str]] = [
    (lambda sent: {**sent, "angles": BIG}, "update dropped: angles has shape (6250000,)"),
    (lambda sent: {**sent, "more": BIG}, "update dropped: "),
    (lambda sent: {k: np.full_like(v, np.nan) for k, v in sent.items()}, "is not finite"),
    (lambda sent: {k: np.full_like(v, 1e30) for k, v in sent.items()}, "update dropped: norm"),
    (lambda sent: {}, "update dropped: "),
]


def test_the_model_is_that_of_the_others(federate: Federate) -> None:
    given = (f"run.rounds={len(GARBAGE)}", "train.steps=1", "evaluation.keep=last", *NO_TEACHER)
    wanted, ran = federate(*given, spoil=silent), federate(*given, spoil=garbage)
    for event, (_, why) in zip(ran.events("round"), GARBAGE, strict=True):
        assert event["aggregated"] == [0, 2]
        assert why in "; ".join(event["failures"])
    assert ran.summary["test"] == wanted.summary["test"]
    models = [load_file(one.folder / "model.safetensors") for one in (wanted, ran)]
    assert all(np.array_equal(models[0][name], models[1][name]) for name in models[0])


def test_more_labels_than_rows_are_not_counted(federate: Federate) -> None:
    given = ("evaluation.mode=federated", "data.server_rows=0", "run.rounds=1")

    def spoil(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == EVALUATE and order.metadata.dst_node_id == 1001:
            records: Any = reply.content.metric_records.values()
            for record in records:
                for name in ("confusion", "logistic_full"):
                    if record.get(name):
                        record[name] = [10**6 for _ in record[name]]
        return reply

    honest, ran = federate(*given), federate(*given, spoil=spoil)
    assert honest.summary["test"]["sites"] == 3
    assert ran.summary["test"]["sites"] == 2
    assert ran.summary["test"]["rows"] < honest.summary["test"]["rows"]
    assert any("client 1" in said for said in ran.summary["test"]["failures"])
