"""Messages with a deadline that holds, and what comes back after it.

Flower's own `send_and_receive` looks at the clock between two pulls only, and a pull waits for an
upload to end: a node that was killed in the middle of one held a round of 45 s for 195 s. Here
each order has a thread that waits for its reply, and the round goes on without the late ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from flwr.app import Error, Message
from flwr.serverapp import Grid

from core.flower_compat import ACTOR_DIED, CLIENT_CRASHED, UNKNOWN_ERROR, set_sender

FIRST_LOOK, LAST_LOOK = 0.1, 0.5
"""Seconds between two looks for a reply: the first, and the longest that they grow to."""

LATE_LOOK = 5.0
"""The same for a reply whose deadline has passed."""

LOOKS_A_SECOND = 20.0
"""Most looks of all threads together."""

DIED = "its process ended without an answer: killed, or out of memory"
"""Errors that Flower and Ray report in words of their own, a minute after them at most."""

REST = 2.0
"""Deadlines for which a node is left alone whose reply is late; then it is asked again.

Flower loses the reply of a node that was started anew between two looks: it would come never.
"""


@dataclass
class Order:
    """An order that was sent.

    Attributes
    ----------
    message : Message
        What was sent.
    reply : Message or None
        What came back.
    error : BaseException or None
        Why nobody looks for a reply any more.
    late : bool
        Whether its deadline has passed, and the round has gone on.
    rests_until : float
        Until when its node is left alone if it is late, by the exchange's clock, seconds.
    """

    message: Message
    reply: Message | None = None
    error: BaseException | None = None
    late: bool = False
    rests_until: float = float("inf")

    @property
    def open(self) -> bool:
        """Whether a reply may still come."""
        return self.reply is None and self.error is None


@dataclass
class Exchange(Grid):
    """Flower's connection to the nodes, with deadlines that hold.

    Parameters
    ----------
    grid : Grid
        Flower's own.
    clock : callable
        Tells the time, seconds.
    """

    grid: Grid
    clock: Callable[[], float] = time.monotonic
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _orders: list[Order] = field(default_factory=list)
    _looking: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return the replies that arrive in time, in the messages' order.

        Parameters
        ----------
        messages : iterable of Message
            One or none to a node.
        timeout : float or None
            Longest wait, seconds; None: until all have answered.

        Raises
        ------
        Exception
            What the connection raised, if it did so for every message.
        BaseException
            What says that the run is over, at once: Flower's `RunNotRunningException`.
        """
        rest = float("inf") if timeout is None else self.clock() + (1 + REST) * timeout
        orders = [Order(message, rests_until=rest) for message in messages]
        threading.Thread(target=self._send, args=(orders,), daemon=True).start()
        with self._changed:
            self._await(orders, timeout)
            for order in orders:
                order.late = order.open
            self._orders += [order for order in orders if order.late]
            answers = [(order, order.reply, order.error) for order in orders]
        errors = [error for _, _, error in answers if error is not None]
        if ends := [error for error in errors if not isinstance(error, Exception)]:
            raise ends[0]
        if orders and len(errors) == len(orders):
            raise errors[0]
        told = ((reply, error, order.message) for order, reply, error in answers)
        return [_answer(*each) for each in told if each[0] or each[1]]

    def _await(self, orders: Sequence[Order], timeout: float | None) -> None:
        """Wait until all have answered, the deadline passes, or the run is over."""

        def over() -> bool:
            ended = any(o.error and not isinstance(o.error, Exception) for o in orders)
            return ended or not any(order.open for order in orders)

        self._changed.wait_for(over, timeout)

    def _send(self, orders: Sequence[Order]) -> None:
        """Send messages one by one, and start who waits for each reply.

        What goes wrong with one is no loss to the others. Flower tries to send for ever: what it
        has not sent by the deadline is not sent at all.
        """
        for order in orders:
            if order.late:
                self._settle(order, error=TimeoutError("not sent in time"))
                continue
            try:
                sent = list(self.grid.push_messages([order.message]))
                if not sent or sent[0] is None:
                    raise ConnectionError("the order could not be sent")
            except BaseException as error:
                self._settle(order, error=error)
                continue
            with self._changed:
                self._looking += 1
            threading.Thread(target=self._look, args=(order, sent[0]), daemon=True).start()

    def _look(self, order: Order, sent: str) -> None:
        """Look for an order's reply until it is there or the run is over."""
        try:
            self._wait(order, sent)
        finally:
            with self._changed:
                self._looking -= 1

    def _wait(self, order: Order, sent: str) -> None:
        pause = FIRST_LOOK
        while order.open and not self._ended.is_set():
            try:
                found = list(self.grid.pull_messages([sent]))
            except BaseException as error:
                self._settle(order, error=error)
                return
            if found:
                self._settle(order, reply=found[0])
                return
            pause = min(1.3 * pause, LATE_LOOK if order.late else LAST_LOOK)
            self._ended.wait(max(pause, self._looking / LOOKS_A_SECOND))

    def _settle(
        self, order: Order, reply: Message | None = None, error: BaseException | None = None
    ) -> None:
        with self._changed:
            order.reply, order.error = reply, error
            self._changed.notify_all()

    def late(self) -> list[tuple[Message, Message]]:
        """Return orders whose replies came after their deadline, each once, with the replies."""
        with self._changed:
            there = [order for order in self._orders if not order.open]
            self._orders = [order for order in self._orders if order.open]
        return [
            (o.message, _answer(o.reply, None, o.message)) for o in there if o.reply is not None
        ]

    def busy(self) -> frozenset[int]:
        """Return the nodes that have not answered an order whose deadline has passed.

        A node works on one message at a time: what it is sent now waits for that. After `REST`
        deadlines it is no longer waited for.
        """
        now = self.clock()
        with self._changed:
            waited = [order for order in self._orders if order.open and now < order.rests_until]
            return frozenset(order.message.metadata.dst_node_id for order in waited)

    def close(self) -> None:
        """Look for no reply any more."""
        self._ended.set()

    # --- all else is Flower's -----------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch replies that are there."""
        return self.grid.pull_messages(message_ids)

    @property
    def run(self) -> Any:
        """Flower's run."""
        return self.grid.run

    def set_run(self, run: Any) -> None:
        """Set Flower's run."""
        self.grid.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Messages are made directly."""
        raise RuntimeError("make a flwr.app.Message")


def _died(reply: Message) -> bool:
    """Whether the client's process ended: a deployment has a code for it, Ray an exception."""
    if not reply.has_error():
        return False
    code, reason = reply.error.code, reply.error.reason or ""
    return code == CLIENT_CRASHED or ACTOR_DIED in reason


def _answer(reply: Message | None, error: BaseException | None, order: Message) -> Message:
    """Return a reply; what went wrong on the way comes in the name of the node that was asked.

    Flower tells of a reply lost or a node gone in the SuperLink's name, which says not whose.
    """
    if reply is None:
        why = f"the connection failed: {error}"
        reply = Message(Error(UNKNOWN_ERROR, why), reply_to=order)
    elif _died(reply):
        reply = Message(Error(CLIENT_CRASHED, DIED), reply_to=order)
    if reply.has_error():
        set_sender(reply, order.metadata.dst_node_id)
    return reply
