"""Whole runs in one process whose clients train one adapter together first."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from safetensors.numpy import load_file

from core import UserError, read_jsonl
from core.messages import (
    ADAPT,
    ADOPT,
    ARRAYS,
    METRICS,
    pack_parameters,
    read_parameters,
)
from llm_qfl.cli import formatting as words
from reporting import write_report
from tests.conftest import SMALL, Federate

SHARED = ("llm.federated=ffa", "llm.rounds=2", "features.encoder=shared")


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path / "store"))


@pytest.mark.usefixtures("own_store")
def test_a_run_on_the_shared_encoder(federate: Federate) -> None:
    sent: list[tuple[str, int]] = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type in (ADAPT, ADOPT):
            arrays = [read_parameters(m) for m in (order, reply)]
            sent.append((order.metadata.message_type, sum(a.nbytes for a in arrays[0].values())))
        return reply

    ran = federate(*SHARED, spoil=watch)
    begin = ran.events("adapter-begin")[0]
    size = begin["bytes"]
    assert sent == [(ADAPT, 0)] * 3 + [(ADAPT, size)] * 3 + [(ADOPT, size)] * 3
    assert begin["bytes_in_all"] == 2 * size * 2 * 3
    assert [e["round"] for e in ran.events("adapter")] == [1, 2]
    prepared = ran.events("prepared")[0]
    assert prepared["features"] == "embedding by the shared adapter, 128 -> 4 (lda)"
    assert prepared["adapter"] == ran.summary["adapter"]
    assert ran.summary["adapter"]["rounds"] == 2
    saved = load_file(ran.folder / "adapter.safetensors")
    assert sum(array.nbytes for array in saved.values()) == size
    # The final adapter is every client's teacher: nobody fine-tunes one of its own.
    assert [t["epochs"] for t in ran.summary["teachers"]] == [0, 0, 0]
    ledger = json.loads((ran.folder / "ledger.json").read_text())
    first = [entry for entry in ledger["entries"] if entry["round"] == 0]
    assert len(first) == 3
    for entry in first:
        assert entry["bytes_down"] > 2 * size  # the average after round 1, and the last one
        assert entry["bytes_up"] > 2 * size  # its own after each round
        assert entry["llm_tokens"] > 0
    assert not any(entry["llm_tokens"] for entry in ledger["entries"] if entry["round"])
    the_launcher_and_the_report_tell_of_it(ran)


def the_launcher_and_the_report_tell_of_it(ran: Any) -> None:
    lines = [
        words.adapter_line(event)
        for event in read_jsonl(ran.folder / "metrics.jsonl")
        if event["event"] in ("adapter-begin", "adapter")
    ]
    assert "ffa: 91.1 kB each way, 2 rounds, 3 clients, 1.09 MB in all" in lines[0]
    assert "round 1/2: training loss 0." in lines[1]
    header = "\n".join(words.header(ran.events("prepared")[0]))
    assert "ffa, 91.1 kB, 2 rounds: loss 0." in header
    write_report(ran.folder)
    assert "Shared adapter" in (ran.folder / "report.html").read_text()


@pytest.mark.usefixtures("own_store")
def test_the_features_are_the_shared_encoders_and_made_once(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llm
    from core import parse_run
    from data import load_server, load_site
    from llm.checked import CheckedModel

    asked: list[tuple[str, ...]] = []
    embed = CheckedModel.embed

    def count(encoder: CheckedModel, texts: Any) -> Any:
        asked.append(tuple(texts))
        return embed(encoder, texts)

    monkeypatch.setattr(CheckedModel, "embed", count)
    ran = federate(*SHARED)
    settings, _ = parse_run([], [*SMALL, *SHARED])
    sites = [load_site(settings, client, 3)[1] for client in range(3)]
    server = load_server(settings)
    parts = [part for site in sites for part in (site.train, site.validation)]
    wanted = [*(part.texts for part in parts), server.validation.texts, server.test.texts]
    assert sorted(asked) == sorted(wanted)
    # The projection was fitted on them, and on nothing else.
    arrays = load_file(ran.folder / "adapter.safetensors")
    adopted = llm.freeze_adapter(arrays, 2, settings.run.seed)
    texts = [text for site in sites for text in site.train.texts]
    features = llm.embed(texts, settings.llm, "dna", adapter=adopted)
    mean = load_file(ran.folder / "model.safetensors")["projection.mean"]
    np.testing.assert_allclose(mean, features.mean(axis=0), atol=1e-5)
    assert np.abs(mean - llm.embed(texts, settings.llm, "dna").mean(axis=0)).max() > 1e-3


def test_the_server_judges_by_the_same_features(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = federate(*SHARED).summary["test"]
    # A server that went on with the base model would see other rows.
    monkeypatch.setattr("server_app.evaluation._frozen_adapter", lambda *_: None)
    assert federate(*SHARED).summary["test"]["loss"] != usual["loss"]


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    "given",
    [
        ("evaluation.mode=federated", "data.server_rows=0", "aggregation.rule=median"),
        ("llm.reuse=false", "distill.features=100", "aggregation.rule=trimmed-mean"),
        ("distill.weight=0", "llm.rows=8", "llm.rounds=5", "aggregation.rule=uniform"),
    ],
    ids=str,
)
def test_other_settings_with_a_new_process_for_each_message(
    federate: Federate, given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from client_app.site import forget
    from llm import fine_tuning

    made = []
    real = fine_tuning._fitted

    def count(*arguments: Any) -> Any:
        made.append(arguments)
        return real(*arguments)

    def restart(order: Message, reply: Message) -> Message:
        forget()
        return reply

    monkeypatch.setattr(fine_tuning, "_fitted", count)
    few = ("data.train_rows=60", "data.server_rows=20", "data.test_rows=30", "llm.rounds=2")
    shared = ("llm.federated=ffa", "features.encoder=shared", *few)
    ran = federate(*shared, *given, spoil=restart)
    assert ran.summary["status"] == "completed"
    assert len(made) == 3  # each client makes its soft labels once
    assert [teacher["reused"] for teacher in ran.summary["teachers"]] == [0, 0, 0]
    rounds = ran.events("adapter")
    # With fewer steps than rounds nobody trains in some: they tell no loss.
    assert all(event["loss"] > 0 for event in rounds if event["stepped"])
    assert any(event["stepped"] for event in rounds)


def test_a_second_run_trains_no_language_model_and_gives_the_same(federate: Federate) -> None:
    from client_app.site import forget

    def restart(order: Message, reply: Message) -> Message:
        forget()  # as in a deployment, where each message may meet a new process
        return reply

    one, two = federate(*SHARED), federate(*SHARED, spoil=restart)
    assert [e["reused"] for e in two.events("adapter")] == [3, 3]
    assert two.summary["ledger"]["llm_tokens"] == 0
    assert one.summary["test"] == two.summary["test"]


def test_the_average_is_weighted_by_the_rows_that_were_reported(federate: Federate) -> None:
    replies: list[tuple[int, dict[str, np.ndarray]]] = []
    orders: list[dict[str, np.ndarray]] = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == ADAPT:
            numbers: Any = reply.content.metric_records[METRICS]
            replies.append((int(numbers["rows"]), read_parameters(reply)))
            numbers["num-examples"] = 10**6  # a liar gains nothing
        if order.metadata.message_type == ADOPT:
            orders.append(read_parameters(order))
        return reply

    # Features by k-mers: the adapter is the teacher only.
    ran = federate(
        "llm.federated=fedavg", "llm.rounds=1", "data.partition=quantity", "data.alpha=1.0",
        "aggregation.clip_radius=100", spoil=watch,
    )  # fmt: skip
    assert ran.events("prepared")[0]["features"].startswith("kmer:4, ")
    rows = np.array([n for n, _ in replies], dtype=float)
    assert len(set(rows)) > 1
    for name, array in orders[0].items():
        loop = sum(n * arrays[name].astype(float) for n, arrays in replies) / rows.sum()
        np.testing.assert_allclose(array, loop, rtol=1e-5, atol=1e-7)


def spoiled(client: int, how: Callable[[Message, Message], Message | None]) -> Any:
    def spoil(order: Message, reply: Message) -> Message | None:
        mine = order.metadata.dst_node_id == 1000 + client
        return how(order, reply) if mine and order.metadata.message_type == ADAPT else reply

    return spoil


def with_arrays(change: Callable[[dict[str, np.ndarray]], Any]) -> Any:
    def spoil(_: Message, reply: Message) -> Message:
        arrays = read_parameters(reply)
        change(arrays)
        reply.content[ARRAYS] = pack_parameters(arrays)
        return reply

    return spoil


def not_a_number(arrays: dict[str, np.ndarray]) -> None:
    arrays[min(arrays)][0] = np.nan


def other_start(_: Message, reply: Message) -> Message:
    numbers = reply.content.metric_records[METRICS]
    numbers["start"] = int(numbers["start"]) + 1  # type: ignore[arg-type]
    return reply


def no_metrics(_: Message, reply: Message) -> Message:
    del reply.content[METRICS]
    return reply


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (with_arrays(not_a_number), "is not finite"),
        (with_arrays(lambda arrays: arrays.pop(min(arrays))), "not that of the others"),
        (other_start, "not that of the others: other model, settings or seed"),
        (no_metrics, r"records \['arrays'\] instead of"),
        (lambda order, _: Message(Error(2, "it fell over"), reply_to=order), "it fell over"),
        (lambda *_: None, "no reply in time"),
    ],
)
def test_a_bad_reply_costs_that_client_its_say_and_no_more(
    federate: Federate, how: Any, why: str
) -> None:
    ran = federate(
        "llm.federated=ffa",
        "llm.rounds=1",
        "run.rounds=1",
        "data.train_rows=60",
        spoil=spoiled(0, how),
    )
    (event,) = ran.events("adapter")
    assert event["clients"] == [1, 2]
    (failure,) = event["failures"]
    assert re.search(f"^client 0: .*{why}", failure), failure
    # It is given the adapter all the same, and trains.
    assert [e["client"] for e in ran.events("client")] == [0, 1, 2]


def false_rows(_: Message, reply: Message) -> Message:
    numbers = reply.content.metric_records[METRICS]
    numbers["rows"] = int(numbers["rows"]) + 1  # type: ignore[arg-type]
    return reply


def not_a_loss(_: Message, reply: Message) -> Message:
    reply.content.metric_records[METRICS]["loss"] = float("nan")
    return reply


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (no_metrics, r"records \['arrays'\] instead of"),
        (false_rows, "9 validation rows instead of 8"),
        (not_a_loss, "loss = nan: Input should be a finite number"),
        (
            with_arrays(lambda arrays: arrays.update(count=arrays["count"] + 1)),
            r"moments of \[17, 17\] rows instead of \[16, 16\]",
        ),
        (
            # An exception comes as its traceback, which ends with what happened.
            lambda order, _: Message(
                Error(1001, "Traceback:\n  a()\nno space left"), reply_to=order
            ),
            r"\(client 2: no space left\)",
        ),
    ],
)
def test_every_client_must_take_the_adapter_and_say_what_is_true(
    federate: Federate, how: Any, why: str
) -> None:
    def spoil(order: Message, reply: Message) -> Message | None:
        mine = order.metadata.dst_node_id == 1002 and order.metadata.message_type == ADOPT
        return how(order, reply) if mine else reply

    with pytest.raises(UserError, match=rf"clients \[2\] did not take .*{why}"):
        federate("llm.federated=ffa", "llm.rounds=1", spoil=spoil)


def test_too_few_replies(federate: Federate) -> None:
    with pytest.raises(UserError, match=r"round 1 of the shared adapter has 2 valid replies of 3"):
        federate("llm.federated=ffa", "run.min_replies=3", spoil=spoiled(1, lambda *_: None))


@pytest.mark.usefixtures("own_store")
def test_a_client_whose_store_was_emptied_says_so(federate: Federate, tmp_path: Path) -> None:
    from client_app.site import forget

    def empty(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == ADOPT and order.metadata.dst_node_id == 1002:
            forget()  # as in a deployment, where each message may meet a new process
            shutil.rmtree(tmp_path / "store")
        return reply

    with pytest.raises(UserError, match=r"shared adapter of this run cannot be read"):
        federate("llm.federated=ffa", "llm.rounds=1", spoil=empty)
