"""A site that answers garbage is dropped with a reason; nothing of it reaches the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Message
from safetensors.numpy import load_file

from core.messages import ARRAYS, EVALUATE, TRAIN, pack_parameters, unpack_parameters

Federate = Callable[..., Any]
Change = Callable[[dict[str, Any]], dict[str, Any]]

BIG = np.zeros(50_000_000 // 8)


def answering(change: Change) -> Callable[[Message, Message], Message | None]:
    """Change what client 1 sends back of its training."""

    def spoil(order: Message, reply: Message) -> Message | None:
        if order.metadata.message_type == TRAIN and order.metadata.dst_node_id == 1001:
            sent = unpack_parameters(reply.content.array_records[ARRAYS])
            reply.content[ARRAYS] = pack_parameters(change(sent))
        return reply

    return spoil


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
    federate("run.rounds=1")  # who fine-tunes is not the question here
    wanted = federate(spoil=silent)
    model = load_file(wanted.folder / "model.safetensors")
    for change, why in GARBAGE:
        ran = federate(spoil=answering(change))
        for event in ran.events("round"):
            assert event["aggregated"] == [0, 2]
            assert why in "; ".join(event["failures"])
        assert ran.summary["test"] == wanted.summary["test"]
        found = load_file(ran.folder / "model.safetensors")
        assert all(np.array_equal(found[name], model[name]) for name in model)


def test_more_labels_than_rows_are_not_counted(federate: Federate) -> None:
    given = ("evaluation.mode=federated", "data.server_rows=0", "run.rounds=1")

    def spoil(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == EVALUATE and order.metadata.dst_node_id == 1001:
            for record in reply.content.metric_records.values():
                for name in ("confusion", "logistic_full"):
                    if record.get(name):
                        record[name] = [10**6 for _ in record[name]]
        return reply

    honest, ran = federate(*given), federate(*given, spoil=spoil)
    assert honest.summary["test"]["sites"] == 3
    assert ran.summary["test"]["sites"] == 2
    assert ran.summary["test"]["rows"] < honest.summary["test"]["rows"]
    assert any("client 1" in said for said in ran.summary["test"]["failures"])
