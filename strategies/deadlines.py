"""Messages with a deadline that holds, and the replies that come after it.

Flower's own `send_and_receive` looks at the clock between two pulls only, and a pull waits for an
upload to end: a node that was killed in the middle of one held a round of 45 s for 195 s. Here
each message has a thread that waits for its reply, and the round goes on without the late ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import Error, Message

from core.flower_compat import ACTOR_DIED, CLIENT_CRASHED, UNKNOWN_ERROR, set_sender
from strategies.wrapped_grid import WrappedGrid

FIRST_POLL, SLOWEST_POLL = 0.1, 0.5
"""Seconds between two polls for a reply: the first, and the longest that they grow to."""

LATE_POLL = 5.0
"""The same for a reply whose deadline has passed."""

POLLS_A_SECOND = 20.0
"""Most polls of all threads together, where a poll takes time."""

POLLING_SHARE = 0.1
"""Share of the time that all polls together take, where that allows more of them: a simulation's
replies are in this process, and a poll takes well below a millisecond.
"""

DIED = "its process ended without an answer: killed, or out of memory"
"""Errors that Flower and Ray report in words of their own, a minute after them at most."""

BACK_OFF = 2.0
"""Deadlines for which a node is left alone whose reply is late; then it is sent messages again.

Flower loses the reply of a node that was restarted between two polls: it would come never.
"""


@runtime_checkable
class HasLateReplies(Protocol):
    """A grid that knows of replies after their deadline, as `DeadlineGrid` does."""

    def late(self) -> list[tuple[Message, Message]]:
        """Return messages whose replies came late, each once, with the replies."""

    def busy(self) -> frozenset[int]:
        """Return the nodes that have not answered a message whose deadline has passed."""


@dataclass
class Sent:
    """A message that was sent.

    Attributes
    ----------
    message : Message
        What was sent.
    busy_until : float
        Until when its node counts as busy if it is late, by the grid's clock, seconds.
    reply : Message or None
        What came back.
    error : BaseException or None
        Why nobody polls for a reply any more.
    late : bool
        Whether its deadline has passed, and the round has gone on.
    """

    message: Message
    busy_until: float = float("inf")
    reply: Message | None = None
    error: BaseException | None = None
    late: bool = False

    @property
    def open(self) -> bool:
        """Whether a reply may still come."""
        return self.reply is None and self.error is None

    @property
    def ended_run(self) -> bool:
        """Whether the connection says that the run is over."""
        return self.error is not None and not isinstance(self.error, Exception)

    def settle(self, reply: Message | None, error: BaseException | None) -> None:
        """Note a reply, or why there is none."""
        self.reply, self.error = reply, error

    def pass_deadline(self) -> None:
        """Note that the deadline has passed: without a reply it is late."""
        self.late = self.open

    def answer(self) -> Message:
        """Return the reply; an error of the connection comes in the name of the node.

        Flower reports a reply lost or a node gone in the SuperLink's name: not whose it is.
        """
        reply = self.reply
        if reply is None:
            why = f"the connection failed: {self.error}"
            reply = Message(Error(UNKNOWN_ERROR, why), reply_to=self.message)
        elif _died(reply):
            reply = Message(Error(CLIENT_CRASHED, DIED), reply_to=self.message)
        if reply.has_error():
            set_sender(reply, self.message.metadata.dst_node_id)
        return reply


def _died(reply: Message) -> bool:
    """Whether the client's process ended: a deployment has a code for it, Ray an exception."""
    if not reply.has_error():
        return False
    code, reason = reply.error.code, reply.error.reason or ""
    return code == CLIENT_CRASHED or ACTOR_DIED in reason


def poll_interval(polling: int, seconds: float) -> float:
    """Return the least pause between two polls of one thread, seconds.

    Parameters
    ----------
    polling : int
        How many threads poll.
    seconds : float
        What a poll takes.
    """
    return polling * min(1 / POLLS_A_SECOND, seconds / POLLING_SHARE)


@dataclass
class DeadlineGrid(WrappedGrid):
    """Flower's connection to the nodes, with deadlines that hold.

    Parameters
    ----------
    grid : Grid
        Flower's own.
    clock : callable
        Tells the time, seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _late: list[Sent] = field(default_factory=list)
    _polling: int = 0
    _poll_seconds: float = 0.0  # what the last poll took
    _closed: threading.Event = field(default_factory=threading.Event)

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
        until = float("inf") if timeout is None else self.clock() + (1 + BACK_OFF) * timeout
        batch = [Sent(message, until) for message in messages]
        threading.Thread(target=self._send, args=(batch,), daemon=True).start()
        with self._changed:
            self._wait(batch, timeout)
            for sent in batch:
                sent.pass_deadline()
            self._late += [sent for sent in batch if sent.late]
            errors = [sent.error for sent in batch if sent.error is not None]
            ended = [error for error in errors if not isinstance(error, Exception)]
            if ended or (errors and len(errors) == len(batch)):
                raise (ended or errors)[0]
            return [sent.answer() for sent in batch if not sent.late]

    def _wait(self, batch: Sequence[Sent], timeout: float | None) -> None:
        """Wait until all have answered, the deadline passes, or the run is over."""

        def over() -> bool:
            return any(sent.ended_run for sent in batch) or not any(sent.open for sent in batch)

        self._changed.wait_for(over, timeout)

    def _send(self, batch: Sequence[Sent]) -> None:
        """Send messages one by one, and start a thread that polls for each reply.

        What goes wrong with one is no loss to the others. Flower tries to send for ever: what it
        has not sent by the deadline is not sent at all.
        """
        for sent in batch:
            if sent.late:
                self._settle(sent, error=TimeoutError("not sent in time"))
                continue
            try:
                ids = list(self.grid.push_messages([sent.message]))
                if not ids or ids[0] is None:
                    raise ConnectionError("the message could not be sent")
            except BaseException as error:
                self._settle(sent, error=error)
                continue
            with self._changed:
                self._polling += 1
            threading.Thread(target=self._poll, args=(sent, ids[0]), daemon=True).start()

    def _poll(self, sent: Sent, message_id: str) -> None:
        """Poll for a message's reply until it is there or the run is over."""
        pause = FIRST_POLL
        try:
            while sent.open and not self._closed.is_set():
                began = time.perf_counter()
                found = list(self.grid.pull_messages([message_id]))
                self._poll_seconds = time.perf_counter() - began
                if found:
                    self._settle(sent, reply=found[0])
                    return
                pause = min(1.3 * pause, LATE_POLL if sent.late else SLOWEST_POLL)
                self._closed.wait(max(pause, poll_interval(self._polling, self._poll_seconds)))
        except BaseException as error:
            self._settle(sent, error=error)
        finally:
            with self._changed:
                self._polling -= 1

    def _settle(
        self, sent: Sent, reply: Message | None = None, error: BaseException | None = None
    ) -> None:
        with self._changed:
            sent.settle(reply, error)
            self._changed.notify_all()

    def late(self) -> list[tuple[Message, Message]]:
        """Return messages whose replies came after their deadline, each once, with the replies."""
        with self._changed:
            settled = [sent for sent in self._late if not sent.open]
            self._late = [sent for sent in self._late if sent.open]
        return [(sent.message, sent.answer()) for sent in settled if sent.reply is not None]

    def busy(self) -> frozenset[int]:
        """Return the nodes that have not answered a message whose deadline has passed.

        A node works on one message at a time: what it is sent now waits for that. After `BACK_OFF`
        deadlines it no longer counts as busy.
        """
        now = self.clock()
        with self._changed:
            waiting = [sent for sent in self._late if sent.open and now < sent.busy_until]
            return frozenset(sent.message.metadata.dst_node_id for sent in waiting)

    def close(self) -> None:
        """Stop polling."""
        self._closed.set()
