"""Deadlines hold whatever the connection does, and late replies are not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import RunNotRunningException

from core.flower_compat import set_message_id, set_task_identity
from strategies.deadlines import BACK_OFF, DeadlineGrid, poll_interval

SOON, ENOUGH = 0.3, 30.0
"""Seconds: a deadline that is to pass, and one that is not."""


class Post(Grid):
    """A connection whose nodes answer as a test says: by node, a function of the order."""

    def __init__(self, **nodes: Callable[[Message], Message | None]) -> None:
        set_task_identity()
        self.nodes = {int(name[1:]): answer for name, answer in nodes.items()}
        self.sent: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[Any]:
        sent: list[Any] = []
        for message in messages:
            if message.metadata.dst_node_id not in self.nodes:
                raise ConnectionError("no such node")
            name = f"m{len(self.sent)}"
            set_message_id(message, name)
            self.sent[name] = message
            sent.append(name)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        (name,) = message_ids
        reply = self.nodes[self.sent[name].metadata.dst_node_id](self.sent[name])
        return [] if reply is None else [reply]

    def send_and_receive(self, messages: Iterable[Message], **more: Any) -> list[Message]:
        raise AssertionError("the grid sends, polls and waits by itself")

    def get_node_ids(self) -> list[int]:
        return sorted(self.nodes)

    run = property(lambda self: "the run")

    def set_run(self, run: object) -> None:
        self.given_run = run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise AssertionError("messages are made directly")


def answer(order: Message) -> Message:
    node = order.metadata.dst_node_id
    return Message(RecordDict({"answer": ConfigRecord({"by": node})}), reply_to=order)


def orders(*nodes: int) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in nodes]


def by(replies: Iterable[Message]) -> list[Any]:
    return [reply.content.config_records["answer"]["by"] for reply in replies]


class Slow:
    """Answers once it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def __call__(self, order: Message) -> Message | None:
        return answer(order) if self.free.is_set() else None


def test_replies_come_in_the_order_of_the_messages() -> None:
    first = Slow()

    def second(order: Message) -> Message:
        first.free.set()  # the first answers after the second
        return answer(order)

    grid = DeadlineGrid(Post(n5=first, n6=second, n7=answer))
    assert by(grid.send_and_receive(orders(5, 6, 7), timeout=ENOUGH)) == [5, 6, 7]
    assert by(grid.send_and_receive(orders(7, 5), timeout=None)) == [7, 5]
    assert grid.send_and_receive([], timeout=ENOUGH) == []


def test_the_deadline_holds_against_a_pull_that_never_returns() -> None:
    stuck = threading.Event()

    def uploading(order: Message) -> Message | None:
        stuck.wait()  # what a node leaves that is killed in the middle of an upload
        return None

    grid = DeadlineGrid(Post(n5=uploading, n6=answer))
    assert by(grid.send_and_receive(orders(5, 6), timeout=SOON)) == [6]
    assert grid.busy() == {5}
    stuck.set()
    grid.close()


def test_the_deadline_holds_against_a_message_that_cannot_be_sent() -> None:
    free = threading.Event()

    class Stuck(Post):
        def push_messages(self, messages: Iterable[Message]) -> list[Any]:
            free.wait()  # Flower tries again for ever
            return super().push_messages(messages)

    post = Stuck(n5=answer, n6=answer)
    grid = DeadlineGrid(post)
    assert grid.send_and_receive(orders(5, 6), timeout=SOON) == []
    assert grid.busy() == {5, 6}
    free.set()
    late: list[tuple[Message, Message]] = []
    while grid.busy():
        late += grid.late()
    # An order of a round that is over is not sent any more.
    assert [m.metadata.dst_node_id for m in post.sent.values()] == [5]
    late += grid.late()
    assert by(reply for _, reply in late) == [5]


def test_that_the_run_is_over_is_no_failure_of_a_node() -> None:
    def ended(order: Message) -> Message:
        raise RunNotRunningException

    grid = DeadlineGrid(Post(n5=Slow(), n6=ended))
    with pytest.raises(RunNotRunningException):
        grid.send_and_receive(orders(5, 6), timeout=None)
    grid.close()


def test_a_node_is_left_alone_for_so_many_deadlines_and_not_for_ever() -> None:
    now = [0.0]
    grid = DeadlineGrid(Post(n5=Slow(), n6=answer), clock=lambda: now[0])
    grid.send_and_receive(orders(5, 6), timeout=SOON)
    now[0] = (1 + BACK_OFF) * SOON - 0.01
    assert grid.busy() == {5}
    now[0] += 0.02
    assert grid.busy() == frozenset()
    grid.close()


def test_a_late_reply_is_told_once_and_its_node_is_busy_until_then() -> None:
    slow = Slow()
    grid = DeadlineGrid(Post(n5=slow, n6=answer))
    assert by(grid.send_and_receive(orders(5, 6), timeout=SOON)) == [6]
    assert grid.busy() == {5}
    assert grid.late() == []
    slow.free.set()
    found: list[tuple[Message, Message]] = []
    while not found:
        found = grid.late()
    ((order, reply),) = found
    assert (order.metadata.dst_node_id, by([reply])) == (5, [5])
    assert (grid.busy(), grid.late()) == (frozenset(), [])


@pytest.mark.parametrize("code", [3, 5])
def test_what_flower_tells_of_a_node_is_put_down_to_that_node(code: int) -> None:
    def gone(order: Message) -> Message:
        reply = Message(Error(code, "node unavailable"), reply_to=order)
        reply.metadata.__dict__["_src_node_id"] = 1  # the SuperLink's
        return reply

    (lost,) = DeadlineGrid(Post(n5=gone)).send_and_receive(orders(5), timeout=ENOUGH)
    assert lost.metadata.src_node_id == 5
    assert lost.error.reason == "node unavailable"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (8, "ClientApp stopped responding."),  # seen from a SuperNode, a minute after the kill
        (0, "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly before ...'>"),
    ],
)
def test_a_clients_process_that_was_killed_is_called_so(code: int, reason: str) -> None:
    def died(order: Message) -> Message:
        return Message(Error(code, reason), reply_to=order)

    lost, fine = DeadlineGrid(Post(n5=died, n6=answer)).send_and_receive(
        orders(5, 6), timeout=ENOUGH
    )
    assert lost.error.reason == "its process ended without an answer: killed, or out of memory"
    assert (lost.metadata.src_node_id, by([fine])) == (5, [6])


def test_an_order_that_cannot_be_sent_costs_the_others_nothing() -> None:
    grid = DeadlineGrid(Post(n6=answer))
    lost, fine = grid.send_and_receive(orders(5, 6), timeout=ENOUGH)
    assert lost.error.reason == "the connection failed: no such node"
    assert (lost.metadata.src_node_id, by([fine])) == (5, [6])


def test_a_message_that_flower_takes_nothing_of_says_so() -> None:
    class Full(Post):
        def push_messages(self, messages: Iterable[Message]) -> list[Any]:
            (message,) = messages
            node = message.metadata.dst_node_id
            return [] if node == 5 else [None] if node == 7 else super().push_messages([message])

    grid = DeadlineGrid(Full(n5=answer, n6=answer, n7=answer))
    one, fine, other = grid.send_and_receive(orders(5, 6, 7), timeout=ENOUGH)
    why = "the connection failed: the message could not be sent"
    assert (one.error.reason, by([fine]), other.error.reason) == (why, [6], why)


def test_a_connection_that_fails_for_all_is_an_error() -> None:
    def broken(order: Message) -> Message:
        raise ConnectionError("SuperLink gone")

    with pytest.raises(ConnectionError, match="SuperLink gone"):
        DeadlineGrid(Post(n5=broken, n6=broken)).send_and_receive(orders(5, 6), timeout=ENOUGH)
    with pytest.raises(ConnectionError, match="no such node"):
        DeadlineGrid(Post()).send_and_receive(orders(5), timeout=ENOUGH)


def test_all_else_is_flowers() -> None:
    post = Post(n5=answer)
    grid = DeadlineGrid(post)
    assert list(grid.get_node_ids()) == [5]
    assert grid.run == "the run"
    grid.set_run("another")
    assert post.given_run == "another"
    (sent,) = grid.push_messages(orders(5))
    assert by(grid.pull_messages([sent])) == [5]


def test_polls_are_rare_where_they_take_time_and_frequent_where_they_do_not() -> None:
    assert poll_interval(100, seconds=0.02) == 5.0  # a deployment's: 20 a second
    assert poll_interval(100, seconds=0.0001) == pytest.approx(0.1)  # a simulation's
    assert poll_interval(1, seconds=10.0) == pytest.approx(0.05)
