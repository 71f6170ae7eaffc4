"""A client that answers anything: its reply is used or dropped with a reason, the run goes on."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import UserError
from core.messages import ABOUT, ADAPT, EVALUATE, METRICS, PREPARE, TRAIN
from core.received import read_site_report
from server_app.prepare import dominant_sites, read_reports, rows_by_class
from tests.conftest import NO_TEACHER, Federate
from tests.hostile_replies import ESCAPES, Trap, change

FEDERATED = ("evaluation.mode=federated", "data.server_rows=0")


@pytest.fixture(autouse=True)
def nothing_unpickled() -> Iterator[None]:
    yield
    assert not Trap.sprung


def plain(ran: Any) -> None:
    """Check that a finished run's record holds finite numbers and text that can be shown."""

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                look(key)
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)
        elif isinstance(value, str):
            assert value.isprintable()
        elif isinstance(value, float):
            assert math.isfinite(value)

    for name in ("metrics.jsonl", "agent.jsonl", "summary.json", "ledger.json"):
        for line in (ran.folder / name).read_text().splitlines():
            assert "\x1b" not in line
    look(json.loads((ran.folder / "summary.json").read_text()))
    for kind in ("round", "client", "prepared"):
        look(ran.events(kind))


def spoiling(rng: random.Random, kinds: tuple[str, ...], done: list[str]) -> Any:
    """Let client 1 send what is drawn, for these kinds of messages."""

    def spoil(order: Message, reply: Message) -> Message:
        kind, mine = order.metadata.message_type, order.metadata.dst_node_id == 1001
        if mine and kind in kinds and not reply.has_error():
            done.append(f"{kind}: {change(rng, reply.content)}")
        return reply

    return spoil


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
def test_a_run_goes_on_whatever_a_client_answers(federate: Federate, seed: int) -> None:
    done: list[str] = []
    spoil = spoiling(random.Random(seed), (TRAIN, EVALUATE), done)
    ran = federate(*FEDERATED, "run.rounds=4", "train.steps=1", spoil=spoil)
    assert ran.summary["status"] == "completed"
    assert len(done) == 9  # training and evaluation in four rounds, and the test
    plain(ran)
    for event in ran.events("round"):
        said = "; ".join(event["failures"])
        assert {0, 2} <= set(event["aggregated"])
        assert 1 in event["aggregated"] or "client 1: update dropped: " in said, done
    budget = sum(event["circuits"] for event in ran.events("client"))
    assert budget <= 3 * ran.events("round")[0]["circuits"] * 4


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
def test_an_adapter_is_trained_whatever_a_client_answers(federate: Federate, seed: int) -> None:
    done: list[str] = []
    given = ("llm.federated=ffa", "llm.rounds=1", "run.rounds=1", "data.train_rows=60")
    ran = federate(*given, spoil=spoiling(random.Random(seed), (ADAPT,), done))
    (event,) = ran.events("adapter")
    assert {0, 2} <= set(event["clients"])
    assert len(done) == 1
    assert 1 in event["clients"] or "client 1: " in "; ".join(event["failures"])
    plain(ran)


@pytest.fixture(scope="module")
def honest() -> tuple[Any, list[Message]]:
    """Return a run's settings and the clients' honest answers to its preparation."""
    from bench.grid import InProcessGrid
    from client_app.app import app
    from core import flatten, parse_run
    from tests.conftest import SMALL

    found, _ = parse_run([], SMALL)
    grid = InProcessGrid(app, flatten(found), 3)
    orders = [Message(RecordDict(), node, PREPARE) for node in grid.get_node_ids()]
    return found, list(grid.send_and_receive(orders))


def spoilt(replies: list[Message], change: Callable[[RecordDict], Any]) -> list[Message]:
    """Return the replies, client 1's with its content changed."""
    records: Any = replies[1].content.items()
    content = RecordDict({name: type(record)(dict(record)) for name, record in records})
    change(content)
    found = [replies[0], copy.copy(replies[1]), replies[2]]
    found[1].content = content
    return found


def test_a_preparation_is_used_or_refused_in_one_line(honest: tuple[Any, list[Message]]) -> None:
    ours = ("node 1001 sent a report that cannot be used: ", "clients disagree", "partition-id")
    given, replies = honest
    for number in range(200):
        sent = spoilt(replies, partial(change, random.Random(number)))
        try:
            answers = read_reports(sent, given, read_site_report, "start")
        except UserError as error:
            refused = str(error)
        else:
            members = [member for member, _, _ in answers]
            rows_by_class(members, given)
            list(dominant_sites(members, given))
            continue
        assert refused.isprintable()
        assert any(words in refused for words in ours), refused


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("site", "", "at least 1 character"),
        ("site", ESCAPES, "character U.001B cannot be shown"),
        ("classes", ["a", "\u202eb"], "character U.202E cannot be shown"),
        ("classes", ["a", "a"], "reports the classes"),
        ("client", "1", "valid integer"),
        ("client", -1, "greater than or equal to 0"),
        ("client", 10**9, "less than or equal to 1000000"),
        ("client", 7, "client 7 of 3"),
        ("class_rows", [16, 17], r"moments of \[16, 16\] rows instead of \[16, 17\]"),
        ("class_rows", [16.5, 15.5], "valid integer"),
        ("train_rows", 10**9, r"client 1 reports 1000000000 training rows and .* \[16, 16\]"),
        ("train_rows", 10**12, "less than or equal to 1000000000"),
        ("seconds", float("inf"), "finite number"),
        ("more", 1, "more is no field of it"),
        ("circuits_per_step", -1, "circuits_per_step = -1.* greater than or equal to 0"),
        ("circuits_per_step", 2**50, rf"circuits_per_step = {2**50}, of at most \d+"),
        ("circuits_fixed", -5, "circuits_fixed = -5.* greater than or equal to 0"),
        ("circuits_fixed", 10**6, r"circuits_fixed = 1000000, of at most \d+"),
        ("shots_per_circuit", 0.5, "shots_per_circuit = 0.5.* valid integer"),
        ("shots_per_circuit", 10**9, "shots_per_circuit = 1000000000, of at most 100000000"),
    ],
)
def test_what_a_site_reports_of_itself_is_exact(
    honest: tuple[Any, list[Message]], name: str, value: Any, why: str
) -> None:
    given, replies = honest

    def lie(content: RecordDict) -> None:
        content.config_records[ABOUT][name] = value

    with pytest.raises(UserError, match=f"node 1001 sent .*{why}") as caught:
        read_reports(spoilt(replies, lie), given, read_site_report, "start")
    assert str(caught.value).isprintable()


def test_a_false_report_ends_the_run_before_it_begins(federate: Federate) -> None:
    def spoil(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PREPARE and order.metadata.dst_node_id == 1001:
            reply.content.config_records[ABOUT]["train_rows"] = 10**9
        return reply

    with pytest.raises(UserError, match=r"node 1001 sent .*client 1 reports 1000000000 training"):
        federate(spoil=spoil)


def test_reasons_of_a_client_are_escaped(
    federate: Federate, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == TRAIN and order.metadata.dst_node_id == 1001:
            return Message(Error(2, ESCAPES), reply_to=order)
        return reply

    ran = federate("run.rounds=1", spoil=broken)
    assert ran.events("round")[0]["failures"] == [
        r"client 1: \x1b[31mred\x1b[0m \x00\x07\u202eevil\u2066"
    ]
    plain(ran)


def test_no_declared_number_ends_a_run_by_its_budget(federate: Federate) -> None:
    def dear(order: Message, reply: Message) -> Message:
        if order.metadata.message_type in (TRAIN, EVALUATE) and order.metadata.dst_node_id == 1001:
            reply.content.metric_records[METRICS]["circuits"] = 2**50
        return reply

    given = (*FEDERATED, "stop.circuits=1000000")
    ran = federate(*given, spoil=dear)
    assert ran.summary["rounds"] == 2
    assert ran.summary["ledger"]["circuits"] < 10**6
    said = "; ".join(ran.events("round")[0]["failures"])
    assert f"update dropped: {2**50} circuits of" in said
    assert f"evaluation dropped: {2**50} circuits of" in said


@pytest.mark.parametrize(("name", "value"), [("test_rows", 10**9), ("val_rows", 10**9)])
def test_rows_that_a_budget_cannot_pay_for_name_their_client(
    federate: Federate, name: str, value: int
) -> None:
    def dear(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == PREPARE and order.metadata.dst_node_id == 1001:
            about = reply.content.config_records[ABOUT]
            about[name] = value
            about["circuits_fixed"] = 2 * int(str(about["val_rows"]))
        return reply

    why = r"circuits, of these client 1 1,000,000,0\d\d; accepted: at most stop.circuits = 1000000"
    with pytest.raises(UserError, match=why):
        federate(*FEDERATED, "stop.circuits=1000000", spoil=dear)


def test_seconds_are_cut_to_what_the_server_has_waited(federate: Federate) -> None:
    def slow(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == TRAIN and order.metadata.dst_node_id == 1001:
            reply.content.metric_records[METRICS]["train_seconds"] = 1e7
        return reply

    ran = federate("run.rounds=1", spoil=slow)
    (event,) = ran.events("round")
    assert event["aggregated"] == [0, 1, 2]
    assert ran.summary["ledger"]["train_seconds"] < 100
    assert ran.summary["ledger"]["idle_seconds"] < 200


# --- rows that a site declares of itself -------------------------------------------------------


def perfect(rows: int) -> Any:
    """Let client 1 declare so many test rows from the start, and all of them classified rightly."""

    def lie(order: Message, reply: Message) -> Message:
        if order.metadata.dst_node_id != 1001:
            return reply
        if order.metadata.message_type == PREPARE:
            reply.content.config_records[ABOUT]["test_rows"] = rows
        if order.metadata.message_type == EVALUATE:
            numbers = reply.content.metric_records[METRICS]
            if numbers["logistic_full"] or int(numbers["rows"]) == 20:  # type: ignore[arg-type]
                numbers["rows"], numbers["loss"] = rows, 0.0
                numbers["confusion"] = [rows // 2, 0, 0, rows - rows // 2]
                numbers["logistic_full"] = numbers["logistic_projected"] = []
        return reply

    return lie


def test_one_sites_claim_does_not_decide_what_is_reported(federate: Federate) -> None:
    honest, ran = federate(*FEDERATED), federate(*FEDERATED, spoil=perfect(10**9))
    others = honest.summary["test"]
    assert "without" not in others
    (without,) = ran.summary["test"]["without"]
    assert (without["client"], without["declared"], without["counted"]) == (1, 10**9, 60)
    assert without["rows"] == 40
    # Three times the median of 20 rows: 60 of 100 rows are its own, all of them right.
    right = 40 * without["accuracy"]
    assert ran.summary["test"]["accuracy"] == pytest.approx((60 + right) / 100)
    assert ran.summary["test"]["rows"] == 100
    everything = json.loads((honest.folder / "summary.json").read_text())["test"]["confusion"]
    assert sum(map(sum, everything)) == 60
    warned = ran.events("prepared")[0]["warnings"]
    assert warned == [
        "client 1 declares 1,000,000,000 of 1,000,000,040 test rows; 60 of 100 count (60 %)"
    ]


def test_one_sites_claim_does_not_take_the_weighted_mean(federate: Federate) -> None:
    from strategies import llm_qfl

    seen: list[list[float]] = []
    aggregate = llm_qfl.aggregate

    def watch(settings: Any, number: int, parts: Any, *more: Any) -> Any:
        seen.append([part.weight for part in parts])
        return aggregate(settings, number, parts, *more)

    skew = ("data.partition=quantity", "data.alpha=0.3", "run.rounds=1", "run.clients=4")
    given = (*skew, *NO_TEACHER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm_qfl, "aggregate", watch)
        free = federate(*given, "aggregation.max_weight=1e9")
        capped = federate(*given, "aggregation.max_weight=2")
    rows = [c["train_rows"] for c in free.events("prepared")[0]["clients"]]
    bound = 2 * sorted(rows)[1]
    assert max(rows) > bound
    assert seen == [rows, [min(n, bound) for n in rows]]
    said, none = (
        [line for line in ran.events("prepared")[0]["warnings"] if "declares" in line]
        for ran in (capped, free)
    )
    assert none == []
    assert f"declares {max(rows)} of {sum(rows)} training rows; {bound} of" in said[0]
