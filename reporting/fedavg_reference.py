"""What a run's rounds cost, and what as many plain ones would have: pure.

A plain round is everybody at `train.steps`. Circuits follow from each client's prices on record;
seconds are an estimate from its measured seconds a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core import circuit_prices, is_number
from reporting.record import Json, Record

Views = Mapping[int, Json]
"""What is known of each client, by index."""


@dataclass(frozen=True)
class Bill:
    """What a number of rounds cost.

    Attributes
    ----------
    circuits, spend : float or None
        Circuits, and circuits times their price.
    busy, idle : float or None
        Seconds in training, and of waiting for the slowest in training. None: not on record.
    """

    circuits: float | None
    spend: float | None
    busy: float | None
    idle: float | None


@dataclass(frozen=True)
class History:
    """What is on record of a run's clients, round by round.

    Attributes
    ----------
    rounds, clients : tuple of int
        The finished rounds, and the clients.
    before, after : mapping
        By round, the clients as they were when it was decided, and once it was done.
    trained : mapping
        By round and client, the ``client`` event of who answered.
    """

    rounds: tuple[int, ...]
    clients: tuple[int, ...]
    before: Mapping[int, Views]
    after: Mapping[int, Views]
    trained: Mapping[tuple[int, int], Json]

    @classmethod
    def of(cls, record: Record) -> History:
        """Read it from the observations, and the end of it from the last checkpoint."""
        before, after = {}, {}
        for line in record.decisions:
            seen, at = line.get("observation"), whole_number(line.get("round"))
            if isinstance(seen, Mapping) and at is not None:
                before[at] = after[at - 1] = _views(seen.get("clients"))
        if (last := whole_number(record.state.get("round"))) is not None:
            after[last] = _views(record.state.get("views"))
        trained = {
            (at, client): event
            for event in record.clients
            if (at := whole_number(event.get("round"))) is not None
            and (client := whole_number(event.get("client"))) is not None
        }
        return cls(record.round_ids, record.client_ids, before, after, trained)

    def measured(self, at: int, client: int) -> tuple[float, float] | None:
        """Return the seconds a step and the steps of a client in a round, if it trained."""
        event = self.trained.get((at, client))
        steps = real(event.get("steps")) if event and not event.get("dropped") else None
        if event is None or steps is None:
            return None
        pace, busy = real(self.last_view(at, client).get("seconds_per_step")), _training(event)
        if pace is None and busy is not None:
            pace = busy / max(1.0, steps)
        return None if pace is None else (pace, max(1.0, steps))

    def last_view(self, at: int, client: int) -> Json:
        """Return what was known of a client once a round was done; empty if nothing."""
        return self.after.get(at, {}).get(client, {})

    def credits(self, record: Record, client: int) -> list[float]:
        """Return a client's credit in each round that it was judged in."""
        counted = {event.get("round"): event.get("aggregated") or () for event in record.rounds}
        found = [
            real(self.last_view(at, client).get("credit"))
            for at in self.rounds
            if client in counted.get(at, ())
        ]
        return [value for value in found if value is not None]

    def last(self, client: int, key: str) -> float | None:
        """Return the newest figure of a client, or None."""
        for at in sorted(self.after, reverse=True):
            if (value := real(self.after[at].get(client, {}).get(key))) is not None:
                return value
        return None


def real(value: Any) -> float | None:
    """Return a figure as a float; None for none."""
    return float(value) if is_number(value) else None


def whole_number(value: Any) -> int | None:
    """Return a figure as a whole number; None for none."""
    return int(value) if is_number(value) else None


def _views(listed: Any) -> dict[int, Json]:
    views = listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ()
    return {
        int(view["client"]): view
        for view in views
        if isinstance(view, Mapping) and is_number(view.get("client"))
    }


def _training(event: Json) -> float | None:
    """Return the seconds that a participant trained, its wait in a device's queue included."""
    seconds = real(event.get("train_seconds"))
    return None if seconds is None else seconds + (real(event.get("queue_seconds")) or 0.0)


def prices(record: Record, history: History) -> dict[int, float]:
    """Return the price of each client's circuits, where it is on record."""
    settings: Any = record.config.get("settings")
    agent = settings.get("agent") if isinstance(settings, Mapping) else None
    text = agent.get("circuit_prices") if isinstance(agent, Mapping) else None
    listed = circuit_prices(str(text), len(history.clients)) or () if text is not None else ()
    set_prices = dict(zip(history.clients, listed, strict=False))
    seen = {client: history.last(client, "circuit_price") for client in history.clients}
    return {**set_prices, **{k: price for k, price in seen.items() if price is not None}}


def circuits_run(record: Record) -> dict[int, float]:
    """Return the circuits of each client in the finished rounds; nothing if not on record."""
    entries = [e for e in record.ledger.get("entries") or () if isinstance(e, Mapping)]
    return _by_client(record, entries, "circuits") or _by_client(record, record.clients, "circuits")


def waited(record: Record) -> dict[int, float]:
    """Return the seconds that each client waited at the barriers of the finished rounds."""
    entries = [e for e in record.ledger.get("entries") or () if isinstance(e, Mapping)]
    key = "idle_seconds"
    return _by_client(record, entries, key) or _by_client(record, record.clients, key)


def _by_client(record: Record, lines: Iterable[Json], key: str) -> dict[int, float]:
    sums: dict[int, float] = {}
    for line in lines:
        named = is_number(line.get("client")) and line.get("round") in record.round_ids
        if named and is_number(line.get(key)):
            client = int(line["client"])
            sums[client] = sums.get(client, 0.0) + float(line[key])
    return {client: sums.get(client, 0.0) for client in record.client_ids} if sums else {}


def spend(circuits: Mapping[int, float], price: Mapping[int, float]) -> float | None:
    """Return circuits times their price; None where one is not on record."""
    if not circuits or not set(circuits) <= set(price):
        return None
    return sum(count * price[client] for client, count in circuits.items())


def plain_steps(record: Record) -> int | None:
    """Return the steps of a plain round, `train.steps`."""
    told = [
        seen.get("plain_steps")
        for line in record.decisions
        if isinstance(seen := line.get("observation"), Mapping)
    ]
    settings: Any = record.config.get("settings")
    train = settings.get("train") if isinstance(settings, Mapping) else None
    told.append(train.get("steps") if isinstance(train, Mapping) else None)
    return next((int(steps) for steps in told if steps is not None and is_number(steps)), None)


def run_bill(record: Record, history: History) -> Bill:
    """Return what the run's finished rounds cost."""
    circuits = circuits_run(record)
    rounds = []
    for at in history.rounds:
        busy = []
        for client in history.clients:
            if (event := history.trained.get((at, client))) is None:
                continue
            measured = history.measured(at, client)
            busy.append(measured[0] * measured[1] if measured else _training(event))
        rounds.append(busy)
    return _bill(circuits, prices(record, history), rounds)


def plain_bill(record: Record, history: History) -> Bill:
    """Return what as many rounds would have cost with everybody at `train.steps`.

    A client has the pace of the round if it trained that long in it, else the mean pace of all its
    steps: the part of a round that is no steps would make a short one look slow. Who took fewer
    steps than one plain round in all counts as the mean of the others.
    """
    steps = plain_steps(record)
    if steps is None:
        return Bill(None, None, None, None)
    usual = usual_paces(history, steps)
    mean = sum(usual.values()) / len(usual) if usual else None
    rounds = []
    for at in history.rounds:
        seconds = []
        for client in history.clients:
            pace = usual.get(client, mean)
            if (measured := history.measured(at, client)) and measured[1] >= steps:
                pace = measured[0]
            seconds.append(None if pace is None else pace * steps)
        rounds.append(seconds)
    return _bill(_plain_circuits(history, steps), prices(record, history), rounds)


def usual_paces(history: History, steps: int) -> dict[int, float]:
    """Return the mean seconds a step of each client that took so many steps; of all if none did."""
    seconds, taken = dict.fromkeys(history.clients, 0.0), dict.fromkeys(history.clients, 0.0)
    for at, client in history.trained:
        if client in taken and (measured := history.measured(at, client)):
            seconds[client] += measured[0] * measured[1]
            taken[client] += measured[1]
    found = {k: seconds[k] / taken[k] for k in history.clients if taken[k] >= max(1, steps)}
    return found or {k: seconds[k] / taken[k] for k in history.clients if taken[k]}


def _plain_circuits(history: History, steps: int) -> dict[int, float]:
    views = _filled(history.before, history)
    sums = dict.fromkeys(history.clients, 0.0)
    for at in history.rounds:
        for client in history.clients:
            view = views[at].get(client, {})
            each, fixed = (real(view.get(f"circuits_{part}")) for part in ("per_step", "fixed"))
            if each is None or fixed is None:
                return {}
            sums[client] += fixed + steps * each
    return sums


def _filled(by_round: Mapping[int, Mapping[int, Any]], history: History) -> dict[int, Any]:
    """Give a client that a round knows nothing of what is known of its last one, or its first."""
    first: dict[int, Any] = {}
    for at in history.rounds:
        first = {**by_round.get(at, {}), **first}
    filled, newest = {}, first
    for at in history.rounds:
        newest = {**newest, **by_round.get(at, {})}
        filled[at] = newest
    return filled


def _bill(
    circuits: Mapping[int, float],
    price: Mapping[int, float],
    rounds: Sequence[Sequence[float | None]],
) -> Bill:
    """Add a bill up; ``rounds`` are the participants' seconds in each."""
    count = sum(circuits.values()) if circuits else None
    busy = idle = 0.0
    for seconds in rounds:
        known = [value for value in seconds if value is not None]
        if not known or len(known) < len(seconds):
            return Bill(count, spend(circuits, price), None, None)
        busy += sum(known)
        idle += max(known) * len(known) - sum(known)
    return Bill(count, spend(circuits, price), *((busy, idle) if rounds else (None, None)))


def saved(ran: float | None, plain: float | None) -> float | None:
    """Return the share of the plain cost that the run did not have; below 0 it cost more."""
    return None if ran is None or not plain else 1 - ran / plain
