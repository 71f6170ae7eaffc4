"""What the page shows of more clients than it has room for: bands, extremes, a searched table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.formatting import join_list
from reporting.charts import (
    CROWD,
    HALF,
    MARKS,
    MUTED,
    WARN,
    WIDE,
    any_known,
    chart,
    client_lines,
    marks,
    rounds_axis,
)
from reporting.fedavg_reference import History, by_client
from reporting.formatting import amount, duration, figure, percent, text, whole
from reporting.page import Columns, SearchTable, Table, table_of
from reporting.record import Json, Record

EXTREMES = 10
"""Clients of a table of the best, and of one of the worst."""

UNCOUNTED = "#c98a1b"
"""Colour of updates that trained and did not count."""

QUANTILES = (
    ("least", "Least", 0.0),
    ("tenth", "10 %", 0.1),
    ("middle", "Median", 0.5),
    ("ninetieth", "90 %", 0.9),
    ("most", "Most", 1.0),
)


def crowded(record: Record) -> bool:
    """Whether a run has too many clients for a line each."""
    return len(record.client_ids) > CROWD


# --- pictures -------------------------------------------------------------------------------


def participation(record: Record) -> str:
    """Draw how many clients counted, did not count, and failed, by round."""
    chosen = {e["round"]: len(e.get("participants") or ()) for e in record.rounds}
    if not any(chosen.values()):
        return ""
    places = {name: [at for at, _ in found] for name, found in marks(record).items()}
    lost = {name: [found.count(x) for x in range(len(chosen))] for name, found in places.items()}
    trained, failed = (lost[name] for name in MARKS)
    counted = [
        chosen[at] - one - other
        for at, one, other in zip(record.round_ids, trained, failed, strict=True)
    ]
    parts = (
        ("aggregated", counted, "#0b5fa5"),
        ("trained, not aggregated", trained, UNCOUNTED),
        ("dropped or failed", failed, WARN),
    )

    def draw(canvas: Any, axes: Any) -> None:
        below = [0] * len(counted)
        for name, heights, colour in parts:
            if any(heights):
                axes.bar(record.round_ids, heights, 0.7, bottom=below, color=colour, label=name)
                below = [one + other for one, other in zip(below, heights, strict=True)]
        rounds_axis(axes, record.round_ids)
        axes.set_ylabel("clients")
        axes.grid(visible=False, axis="x")
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=3,
            fontsize=8.0,
            columnspacing=1.0,
            handlelength=1.2,
        )

    return chart(HALF, draw, "Clients that trained, by round and what became of their updates")


def spread(record: Record, key: str, unit: str, size: tuple[float, float] = WIDE) -> str:
    """Draw a figure of the ``client`` events by round: median, 10 to 90 %, and the whole range."""
    grid = record.grid(key)
    if not any_known(grid):
        return ""

    def draw(canvas: Any, axes: Any) -> None:
        client_lines(axes, grid)
        rounds_axis(axes, record.round_ids)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(unit)
        axes.tick_params(colors=MUTED)

    return chart(size, draw, f"{unit} of the clients that trained, by round")


# --- tables ---------------------------------------------------------------------------------


def quantiles(columns: Columns, rows: Sequence[Json], title: str = "") -> Table:
    """Return a row a figure: least, 10 %, median, 90 % and most over the clients."""
    from pandas import DataFrame

    found = []
    for key, name, write in columns:
        values = DataFrame([[row.get(key)] for row in rows], columns=["value"], dtype=float)
        values = values["value"].dropna()
        if len(values):
            cells = {short: write(values.quantile(share)) for short, _, share in QUANTILES}
            found.append({"name": name, **cells, "clients": len(values)})
    head: Columns = (
        ("name", "Of each client", str),
        *((short, name, str) for short, name, _ in QUANTILES),
        ("clients", "Clients", whole),
    )
    return table_of(head, found, title=title)


@dataclass(frozen=True)
class Measure:
    """The figure by which clients rank.

    Attributes
    ----------
    key, name : str
        Key of the rows, and its name in a sentence.
    falling : bool
        Whether more is better.
    """

    key: str
    name: str
    falling: bool


CREDIT = Measure("credit", "mean credit, nats of the server's validation loss", True)
LOSS = Measure("loss", "the loss of its last model on its own validation rows, nats", False)


def client_rows(record: Record, history: History | None) -> list[dict[str, Any]]:
    """Return all that the page says of each client, a row a client."""
    classes = [join_list([c]) for c in record.prepared.get("classes", [])]
    about = {int(one["client"]): one for one in record.prepared.get("clients", [])}
    teachers = {int(one["client"]): one for one in record.summary.get("teachers") or []}
    trained: dict[int, int] = {}
    last: dict[int, Json] = {}
    for event in record.clients:
        trained[event["client"]] = trained.get(event["client"], 0) + (not event.get("dropped"))
        last[event["client"]] = event
    costs = {key: by_client(record, key) for key in ("circuits", "train_seconds", "idle_seconds")}
    credit = _mean_credit(history)
    rows = []
    for k in record.client_ids:
        site, teacher, event = about.get(k, {}), teachers.get(k, {}), last.get(k, {})
        counts = zip(classes, site.get("class_rows", []), strict=False)
        rows.append(
            {
                **{key: site.get(key) for key in ("train_rows", "backend", "llm")},
                "client": f"{k} · {record.client_name(k)}",
                "mix": ", ".join(f"{name} {whole(count)}" for name, count in counts),
                "trained": trained.get(k, 0),
                "loss": event.get("loss"),
                "accuracy": event.get("accuracy"),
                "credit": credit.get(k),
                "weight": event.get("distill_weight"),
                "llm_loss": teacher.get("loss"),
                "llm_accuracy": teacher.get("accuracy"),
                **{key: found.get(k) for key, found in costs.items()},
            }
        )
    return rows


def _mean_credit(history: History | None) -> Mapping[int, float]:
    if history is None:
        return {}
    means = history.credits().mean().dropna()
    return {int(client): float(value) for client, value in means.items()}


COLUMNS: Columns = (
    ("client", "Client", str),
    ("train_rows", "Training rows", whole),
    ("mix", "Per class", text),
    ("backend", "Backend", text),
    ("llm", "LLM", text),
    ("trained", "Rounds trained", whole),
    ("loss", "Last loss", figure),
    ("accuracy", "Last accuracy", percent),
    ("credit", "Mean credit", lambda value: figure(value, 4)),
    ("weight", "Weight of distillation", figure),
    ("llm_loss", "LLM's loss", figure),
    ("llm_accuracy", "LLM's accuracy", percent),
    ("circuits", "Circuits", amount),
    ("train_seconds", "Training time", duration),
    ("idle_seconds", "Waiting", duration),
)

WORDS = ("client", "mix", "backend", "llm")
"""Columns of text."""


def all_clients(rows: Sequence[Json]) -> SearchTable:
    """Return the table of all clients, which the page searches."""
    shown = [
        column for column in COLUMNS if column[0] in ("client", "trained") or _tells(rows, column)
    ]
    table = table_of(shown, rows)
    return SearchTable(table.head, table.rows, _figures(shown), "All clients")


def _tells(rows: Sequence[Json], column: tuple[str, str, Any]) -> bool:
    """Whether a column holds anything, and words that are not the same everywhere."""
    values = {row.get(column[0]) for row in rows} - {None, ""}
    return bool(values) if column[0] not in WORDS else len(values) > 1


def _figures(columns: Columns) -> list[int]:
    return [place for place, (key, _, _) in enumerate(columns) if key not in WORDS]


def extremes(rows: Sequence[Json]) -> list[Table]:
    """Return the best and the worst clients by their mean credit, or else by their last loss.

    No client is in both: of few that have the figure, each table has half.
    """
    measure = CREDIT if any(row["credit"] is not None for row in rows) else LOSS
    known = [row for row in rows if row[measure.key] is not None]
    ranked = sorted(known, key=lambda row: row[measure.key], reverse=measure.falling)
    shown = [
        column
        for column in COLUMNS
        if column[0] in ("client", "train_rows", "trained", "loss", "accuracy", "circuits")
        or column[0] == measure.key
    ]
    most = min(EXTREMES, max(1, len(ranked) // 2))
    note = f"By {measure.name}, of the {len(known):,} clients that have one."
    return [
        table_of(shown, part, title=f"The {len(part)} {which} clients", note=note)
        for which, part in (("best", ranked[:most]), ("worst", ranked[: -most - 1 : -1]))
    ]
