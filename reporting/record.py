"""A run's files, read once; what is missing or damaged is empty, not an error."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import DataError, is_simulated, real_path
from core.formatting import display_safe, is_number
from core.storage.checkpoints import checkpoint_folders
from core.storage.reading import Reader
from core.storage.records import ConfigFile, Decided, LedgerFile, State, Summary

if TYPE_CHECKING:
    from pandas import DataFrame

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """Everything the report is made of.

    Parameters
    ----------
    name : str
        Name of the results folder.
    config, prepared, end, ledger, summary : Mapping
        The run's JSON files and single events; empty if absent.
    clients, rounds, decisions : tuple of Mapping
        The ``client`` and ``round`` events and the agent's decisions, in order.
    circuit : bytes
        ``circuit.svg``; empty if absent.
    state : Mapping
        ``state.json`` of the last checkpoint; empty if absent.
    damaged : tuple of str
        What is wrong with the files, and left out: file, line or place, and why.
    """

    name: str
    config: Json = field(default_factory=dict)
    prepared: Json = field(default_factory=dict)
    clients: tuple[Json, ...] = ()
    rounds: tuple[Json, ...] = ()
    end: Json = field(default_factory=dict)
    decisions: tuple[Json, ...] = ()
    ledger: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    circuit: bytes = b""
    state: Json = field(default_factory=dict)
    damaged: tuple[str, ...] = ()

    @cached_property
    def client_ids(self) -> tuple[int, ...]:
        """Every client that the run names, ascending."""
        named = {int(c["client"]) for c in self.prepared.get("clients", []) if "client" in c}
        seen = {int(event["client"]) for event in self.clients if "client" in event}
        trained = {int(k) for event in self.rounds for k in event.get("participants", [])}
        return tuple(sorted(named | seen | trained))

    @cached_property
    def round_ids(self) -> tuple[int, ...]:
        """Every finished round, ascending."""
        return tuple(sorted({int(event["round"]) for event in self.rounds if "round" in event}))

    def client_name(self, client: int) -> str:
        """Return a client's site name."""
        return self._sites.get(client) or f"client {client}"

    @cached_property
    def _sites(self) -> dict[int, str]:
        found = reversed(self.prepared.get("clients", []))  # of two the first counts
        return {one["client"]: display_safe(one["site"]) for one in found if one.get("site")}

    def class_names(self, count: int) -> list[str]:
        """Return the names of so many classes, or their numbers where names are not on record."""
        names = [display_safe(name) for name in self.prepared.get("classes", [])]
        return names if len(names) == count else [str(place) for place in range(count)]

    @cached_property
    def simulated(self) -> dict[int, bool]:
        """Whether each client's backend is a simulator, where its backend is on record."""
        return {
            int(known["client"]): is_simulated(str(known["backend"]))
            for known in self.prepared.get("clients", [])
            if "client" in known and known.get("backend")
        }

    @cached_property
    def circuit_kind(self) -> str:
        """Return ``simulated`` or ``executed``, both with "and", or nothing if not on record."""
        names, seen = {True: "simulated", False: "executed"}, self.simulated.values()
        return " and ".join(names[kind] for kind in (True, False) if kind in seen)

    @property
    def calibration(self) -> Sequence[Json]:
        """Return the final test's predictions by confidence: rows, confidence, accuracy."""
        bins = (self.summary.get("test") or {}).get("calibration")
        return bins if isinstance(bins, list) else []

    def grid(self, key: str) -> DataFrame:
        """Return a figure of the ``client`` events, (clients, rounds); NaN where there is none."""
        return by_round(self.clients, key, self).T

    def series(self, key: str) -> list[float]:
        """Return a figure of the ``round`` events in the order of rounds; NaN where absent."""
        cells = {e.get("round"): e.get(key) for e in self.rounds}
        return [number(cells.get(at)) for at in self.round_ids]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting of the run, by ``section.key``."""
        tree = self.config.get("settings") or {}
        return {f"{section}.{key}": v for section, part in tree.items() for key, v in part.items()}

    def setting(self, section: str, key: str) -> Any:
        """Return a setting of the run; None if it is not on record."""
        return self.settings.get(f"{section}.{key}")


def by_round(lines: Iterable[Json], key: str, record: Record) -> DataFrame:
    """Return a figure of lines that name a round and a client as a table.

    Parameters
    ----------
    lines : iterable of Mapping
        For instance ``client`` events; of two lines on the same cell the last one counts.
    key : str
        Key of the figure.
    record : Record
        The run, for its finished rounds and its clients.

    Returns
    -------
    DataFrame of float, (rounds, clients)
        NaN where no line has the figure.
    """
    from pandas import DataFrame

    places = ["round", "client"]
    # Only the three: a line of a client has fifty keys, which pandas would look at each.
    cells = [(line.get("round"), line.get("client"), line.get(key)) for line in lines]
    frame = DataFrame(cells, columns=[*places, key]).drop_duplicates(places, keep="last")
    table = frame.pivot(index="round", columns="client", values=key)
    return table.reindex(index=record.round_ids, columns=record.client_ids).astype(float)


def number(value: Any) -> float:
    """Return a figure as a float; NaN for none."""
    return float(value) if is_number(value) else math.nan


def known(values: Iterable[float]) -> list[float]:
    """Return the values that are numbers."""
    return [value for value in values if math.isfinite(value)]


def read_record(folder: Path) -> Record:
    """Read a results folder.

    Parameters
    ----------
    folder : Path
        The folder; any of its files may be missing, cut short or damaged.

    Returns
    -------
    Record
        What it holds.

    Raises
    ------
    DataError
        If it holds neither ``config.json`` nor ``metrics.jsonl`` nor ``summary.json``.
    """
    needed = ("config.json", "metrics.jsonl", "summary.json")
    if not any(os.path.isfile(folder / name) for name in needed):
        raise DataError(f"no run in {str(folder)!r}", "a results folder", "check the path")
    reader = Reader(folder)
    config = reader.file("config.json", ConfigFile)
    events = list(reader.lines("metrics.jsonl"))
    last = [folder, *checkpoint_folders(folder)][-1]
    return Record(
        name=real_path(folder).name,
        config=config,
        prepared=next((e for e in events if e.get("event") == "prepared"), {}),
        clients=tuple(e for e in events if e.get("event") == "client"),
        rounds=tuple(e for e in events if e.get("event") == "round"),
        end=next((e for e in reversed(events) if e.get("event") == "end"), {}),
        decisions=tuple(reader.lines("agent.jsonl", Decided)),
        ledger=reader.file("ledger.json", LedgerFile),
        summary=reader.file("summary.json", Summary),
        state=reader.file(str((last / "state.json").relative_to(folder)), State),
        circuit=reader.content("circuit.svg") or b"",
        damaged=tuple(reader.damaged),
    )
