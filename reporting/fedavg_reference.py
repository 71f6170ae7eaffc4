"""What a run's rounds cost, and what as many rounds of plain FedAvg would have cost.

In a round of FedAvg every client trains `train.steps` steps. Its circuits follow from each
client's circuits a step and a round, as on record; its seconds are an estimate from the client's
measured seconds a step. All tables here are (rounds, clients), of the finished rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from core import circuit_prices
from core.formatting import is_number
from reporting.record import Json, Record, by_round

if TYPE_CHECKING:
    from pandas import DataFrame, Series


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

    circuits: float | None = None
    spend: float | None = None
    busy: float | None = None
    idle: float | None = None


class History:
    """What the agent saw of each client, and how long each client trained, by round.

    Parameters
    ----------
    record : Record
        The run. What is known once a round is done is in the next round's observation, and after
        the last round in the last checkpoint.

    Attributes
    ----------
    seconds, pace, steps : DataFrame
        Seconds of training, the wait in a device's queue included; seconds a step; and steps, at
        least 1. The last two leave out updates that were dropped.
    trained, counted : DataFrame of bool
        Who answered, and whose update was not dropped.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self._before = [
            {**view, "round": line["round"]}
            for line in record.decisions
            if line.get("round") is not None
            for view in (line.get("observation") or {}).get("clients", ())
        ]
        self._after = [{**view, "round": view["round"] - 1} for view in self._before]
        last = record.state.get("round")
        if last is not None:
            self._after += [{**view, "round": last} for view in record.state.get("views", ())]
        events = [{**event, "answered": True} for event in record.clients]
        counted = [event for event in events if not event.get("dropped")]
        self.trained, self.counted = (
            by_round(found, "answered", record).notna() for found in (events, counted)
        )
        queue = by_round(events, "queue_seconds", record).fillna(0.0)
        self.seconds = by_round(events, "train_seconds", record) + queue
        self.steps = by_round(counted, "steps", record).clip(lower=1)
        pace = self.after("seconds_per_step").where(self.steps.notna())
        self.pace = pace.fillna(self.seconds / self.steps)

    def before(self, key: str) -> DataFrame:
        """Return what was known of each client when a round was decided."""
        return by_round(self._before, key, self.record)

    def after(self, key: str) -> DataFrame:
        """Return what was known of each client once a round was done."""
        return by_round(self._after, key, self.record)

    def last(self, key: str) -> dict[int, float]:
        """Return the newest figure of each client that has one."""
        seen = sorted(self._after, key=lambda view: int(view["round"]))
        return {view["client"]: float(view[key]) for view in seen if is_number(view.get(key))}

    def credits(self) -> DataFrame:
        """Return each client's credit in the rounds in which its update was aggregated."""
        credit = self.after("credit")
        for event in self.record.rounds:
            out = credit.columns.difference(event.get("aggregated") or ())
            credit.loc[event["round"], out] = float("nan")
        return credit


def real(value: Any) -> float | None:
    """Return a figure as a float; None for none."""
    return float(value) if is_number(value) else None


def prices(record: Record, history: History) -> dict[int, float]:
    """Return the price of each client's circuits, where it is on record."""
    text = record.setting("agent", "circuit_prices")
    clients = record.client_ids
    listed = circuit_prices(str(text), len(clients)) or () if text is not None else ()
    return {**dict(zip(clients, listed, strict=False)), **history.last("circuit_price")}


def by_client(record: Record, key: str) -> dict[int, float]:
    """Return a cost of each client in the finished rounds; empty if it is not on record."""
    for lines in (record.ledger.get("entries"), record.clients):
        frame = pd.DataFrame(list(lines or ()), columns=["round", "client", key]).dropna()
        frame = frame[frame["round"].isin(record.round_ids)]
        if len(frame):
            sums: Series = frame.groupby("client")[key].sum().astype(float)
            found = sums.reindex(record.client_ids, fill_value=0.0).to_dict()
            return {int(client): float(cost) for client, cost in found.items()}
    return {}


def spend(circuits: Mapping[int, float], price: Mapping[int, float]) -> float | None:
    """Return circuits times their price; None where one is not on record."""
    if not circuits or not set(circuits) <= set(price):
        return None
    return sum(count * price[client] for client, count in circuits.items())


def fedavg_steps(record: Record) -> int | None:
    """Return the steps of a round of FedAvg, `train.steps`."""
    seen: list[Json] = [line.get("observation") or {} for line in record.decisions]
    found = [one.get("plain_steps") for one in seen]
    steps = next((n for n in found if n is not None), record.setting("train", "steps"))
    return int(steps) if is_number(steps) else None


def run_bill(record: Record, history: History) -> Bill:
    """Return what the run's finished rounds cost."""
    seconds = (history.pace * history.steps).fillna(history.seconds)
    price = prices(record, history)
    return _bill(by_client(record, "circuits"), price, seconds, history.trained)


def fedavg_bill(record: Record, history: History) -> Bill:
    """Return what as many rounds would have cost with every client at `train.steps`.

    A client has the pace of the round if it trained that long in it, else the mean pace of all its
    steps: the part of a round that is no steps would make a short one look slow. Who took fewer
    steps than one round of FedAvg in all counts as the mean of the others.
    """
    steps = fedavg_steps(record)
    if steps is None:
        return Bill()
    usual = usual_paces(history, steps)
    pace = history.pace.where(history.steps >= steps).fillna(usual).fillna(usual.mean())
    everyone = pd.DataFrame(True, index=pace.index, columns=pace.columns)
    fixed, each = (
        history.before(f"circuits_{part}").ffill().bfill() for part in ("fixed", "per_step")
    )
    counts = (fixed + steps * each).sum(skipna=False)
    circuits = {int(k): float(count) for k, count in counts.items()}
    if counts.isna().any():
        circuits = {}
    return _bill(circuits, prices(record, history), pace * steps, everyone)


def usual_paces(history: History, steps: int) -> Series:
    """Return the mean seconds a step of clients that took so many steps; of all if none did."""
    taken = history.steps.where(history.pace.notna()).sum()
    found = (history.pace * history.steps).sum() / taken
    enough = found[taken >= max(1, steps)]
    return enough if len(enough) else found[taken > 0]


def _bill(
    circuits: Mapping[int, float],
    price: Mapping[int, float],
    seconds: DataFrame,
    took_part: DataFrame,
) -> Bill:
    """Add a bill up; without every participant's seconds it has no times."""
    count, cost = sum(circuits.values()) if circuits else None, spend(circuits, price)
    timed = bool((seconds.notna() == took_part).all(axis=None))
    if not len(seconds) or not timed or not took_part.any(axis=1).all():
        return Bill(count, cost)
    waits = seconds.max(axis=1) * took_part.sum(axis=1) - seconds.sum(axis=1)
    return Bill(count, cost, float(seconds.sum().sum()), float(waits.sum()))


def saved(ran: float | None, fedavg: float | None) -> float | None:
    """Return the share of FedAvg's cost that the run did not have; below 0 it cost more.

    It is rounded to 1e-9: equal costs that were summed in another order save nothing.
    """
    return None if ran is None or not fedavg else round(1 - ran / fedavg, 9)
