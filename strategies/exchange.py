"""Messages with a deadline that holds, and what comes back after it.

Flower's own `send_and_receive` looks at the clock between two pulls only, and a pull waits for an
upload to end: a node that was killed in the middle of one held a round of 45 s for 195 s. Here
each order has a thread that waits for its reply, and the round goes on without the late ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

FIRST_LOOK, LAST_LOOK = 0.1, 0.5
"""Seconds between two looks for a reply: the first, and the longest that they grow to."""

LATE_LOOK = 5.0
"""The same for a reply whose deadline has passed."""

LOOKS_A_SECOND = 20.0
"""Most looks of all threads together."""


@dataclass
class Order:
    """An order that was sent.

    Attributes
    ----------
    message : Message
        What was sent.
    reply : Message or None
        What came back.
    error : Exception or None
        Why nobody looks for a reply any more.
    late : bool
        Whether that has passed, and the round has gone on.
    """

    message: Message
    reply: Message | None = None
    error: Exception | None = None
    late: bool = False

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
    """

    grid: Grid
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
        """
        due = time.monotonic() + (float("inf") if timeout is None else timeout)
        orders = [self._send(message) for message in messages]
        with self._changed:
            self._changed.wait_for(
                lambda: not any(order.open for order in orders),
                None if timeout is None else max(0.0, due - time.monotonic()),
            )
            for order in orders:
                order.late = order.open
            self._orders += [order for order in orders if order.late]
            answers = [(order, order.reply, order.error) for order in orders]
        errors = [error for _, _, error in answers if error is not None]
        if orders and len(errors) == len(orders):
            raise errors[0]
        told = ((reply, error, order.message) for order, reply, error in answers)
        return [_answer(*each) for each in told if each[0] or each[1]]

    def _send(self, message: Message) -> Order:
        """Send one message and start who waits for its reply; others must not suffer for it."""
        order = Order(message)
        try:
            (sent,) = self.grid.push_messages([message])
            if sent is None:
                raise ConnectionError("the order could not be sent")
        except Exception as error:
            order.error = error
            return order
        with self._changed:
            self._looking += 1
        threading.Thread(target=self._wait, args=(order, sent), daemon=True).start()
        return order

    def _wait(self, order: Order, sent: str) -> None:
        """Look for an order's reply until it is there or the run is over."""
        pause = FIRST_LOOK
        while order.open and not self._ended.is_set():
            try:
                found = list(self.grid.pull_messages([sent]))
            except Exception as error:
                self._settle(order, error=error)
                return
            if found:
                self._settle(order, reply=found[0])
                return
            pause = min(1.3 * pause, LATE_LOOK if order.late else LAST_LOOK)
            self._ended.wait(max(pause, self._looking / LOOKS_A_SECOND))

    def _settle(
        self, order: Order, reply: Message | None = None, error: Exception | None = None
    ) -> None:
        with self._changed:
            order.reply, order.error = reply, error
            self._looking -= 1
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

        A node works on one message at a time: what it is sent now waits for that.
        """
        with self._changed:
            return frozenset(o.message.metadata.dst_node_id for o in self._orders if o.open)

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


def _answer(reply: Message | None, error: Exception | None, order: Message) -> Message:
    """Return a reply; what went wrong on the way comes in the name of the node that was asked.

    Flower tells of a reply lost or a node gone in the SuperLink's name, which says not whose.
    """
    if reply is None:
        why = f"the connection failed: {error}"
        reply = Message(Error(ErrorCode.UNKNOWN, why), reply_to=order)
    if reply.has_error():
        reply.metadata.__dict__["_src_node_id"] = order.metadata.dst_node_id
    return reply
