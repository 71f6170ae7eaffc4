"""The run's events as lines of text; pure, so that tests can read them.

Nothing here knows a terminal: a line is a string, at most `width` characters long.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from core import is_simulated
from core.formatting import (
    BASELINES,
    byte_size,
    describe_circuits,
    describe_privacy,
    display_safe,
    duration,
    figure,
    is_number,
    join_list,
    kept_rounds,
    percent,
    scored_at,
    whole,
    wilson_interval,
)

Event = Mapping[str, Any]

WIDTH = 100
"""Columns that our lines are made for."""

LONGEST = 300
"""Characters of the line that says what went wrong; the whole of it is in the logs."""

MOST_CLIENTS = 12
"""Rows of the header's table of clients; more are summed up."""

MOST_LINES = 10
"""Lines of warnings, failures and late answers that are shown at once; more are counted."""

ROUND_HEAD = "round  clients  steps           loss  accuracy  circuits   idle  reason"
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_REASON_COLUMN = ROUND_HEAD.index("reason")


def plain_text(text: str) -> str:
    """Drop the colour codes that Flower and Ray write into their logs."""
    return _COLOUR.sub("", text)


def one_line(text: Any) -> str:
    """Make one line of anybody's text: no line breaks, tabs or terminal codes; empty for None."""
    letters = plain_text("" if text is None else str(text))
    return " ".join("".join(x if x.isprintable() else " " for x in letters).split())


def clip(text: str, width: int) -> str:
    """Cut a line that is too long, and show that it was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def shortened(line: str) -> str:
    """Cut out the middle of an error that is too long: its end says what to do."""
    if len(line) <= LONGEST:
        return line
    tail = 2 * LONGEST // 5
    return f"{clip(line, LONGEST - tail)}{line[-tail:]}"


def labelled(name: str, value: object) -> str:
    """Write a name and its value as a line of our tables."""
    return f"  {name:<10}{value}"


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Break lines that are too long; what goes below is indented as the values are."""
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, subsequent_indent=" " * 12) or [line]
    ]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def header(event: Event, width: int = WIDTH) -> list[str]:
    """Describe what runs, from the ``prepared`` event."""
    clients: list[Event] = list(event.get("clients", []))
    rows = sum(int(client.get("train_rows", 0)) for client in clients)
    classes = [str(name) for name in event.get("classes", [])]
    data = str(event.get("data", "-"))
    if event.get("synthetic") and "synthetic" not in data.lower():
        data += " (synthetic)"
    rounds = _plural(int(event.get("rounds", 0)), "round")
    facts = {
        "data": f"{data}: {join_list(classes)}",
        "rows": f"{rows:,} to train on at {len(clients)} clients; held out: "
        f"{event.get('validation_rows', 0):,} for validation, "
        f"{event.get('test_rows', 0):,} for the final test",
        "features": "; ".join(
            str(event[key]) for key in ("features", "feature_choice") if event.get(key)
        ),
        "model": f"{event.get('model', '-')}: {event.get('angles', 0)} angles, "
        f"{event.get('parameters', 0)} trainable parameters",
        "backend": _backends(clients),
        "local LLM": _shared(clients, "llm"),
        "adapter": adapter_words(event["adapter"]) if "adapter" in event else None,
        "agent": f"{event.get('agent', '-')}; at most {rounds}",
    }
    lines = [labelled(name, value) for name, value in facts.items() if value is not None]
    table = client_table(clients, classes)
    return [
        *(clip(line, width) for line in lines),
        *warning_lines(event, width),
        *(clip(line, width) for line in table),
    ]


def warning_lines(event: Event, width: int = WIDTH) -> list[str]:
    """Return what is odd about the rows, from the ``prepared`` event or the summary."""
    found = event.get("warnings")
    texts = found if isinstance(found, list) else []
    lines = [labelled("warning", display_safe(text)) for text in texts]
    return _wrapped(first_lines(lines, "report.html has more"), width)


def first_lines(lines: list[str], where: str, indent: str = "") -> list[str]:
    """Return the first lines of many, and how many more there are."""
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"{indent}{more:,} more ({where})"] if more > 0 else lines


def resumed_line(event: Event, width: int = WIDTH) -> str:
    """Describe a run that goes on, from the ``resumed`` event."""
    after, there = int(event.get("round", 0)), len(event.get("clients", []))
    done = f"after round {after}" if after else "before its first round"
    passed = ", ".join(map(str, event.get("damaged", [])))
    damaged = f"; damaged, and passed over: {passed}" if passed else ""
    return clip(labelled("goes on", f"{done}; {there} clients are there{damaged}"), width)


def late_line(event: Event, width: int = WIDTH) -> str:
    """Describe a ``late`` event: a reply whose round had gone on."""
    client = f"client {event.get('client')}, round {event.get('round')}"
    cost = f"its {whole(event.get('circuits'))} circuits are counted, its model is not used"
    return clip(f"  {client}: answered after its deadline; {event.get('problem') or cost}", width)


def roll_line(event: Event, width: int = WIDTH) -> str:
    """Describe a ``roll`` event: who has left, who is not done yet, and who is back."""
    states = (("gone", "gone"), ("busy", "still at an earlier order"), ("back", "back"))
    parts = [
        f"client{'s' * (len(found) > 1)} {', '.join(map(str, found))} {state}"
        for key, state in states
        if isinstance(found := event.get(key), list) and found
    ]
    return clip(f"  {'; '.join(parts)}", width)


def adapter_words(event: Event) -> str:
    """Describe what the shared adapter came to."""
    return (
        f"{event.get('kind', 'shared')}, {byte_size(event.get('bytes', 0))}, "
        f"{event.get('rounds', 0)} rounds: loss {figure(event.get('loss'))}, "
        f"accuracy {percent(event.get('accuracy'))} on clients' validation rows"
    )


def adapter_line(event: Event, width: int = WIDTH) -> str:
    """Describe an ``adapter-begin`` or ``adapter`` event: the shared adapter under way."""
    if event.get("event") == "adapter-begin":
        text = (
            f"{event.get('kind', 'shared')}: {byte_size(event.get('bytes', 0))} each way, "
            f"{event.get('rounds', 0)} rounds, {event.get('clients', 0)} clients, "
            f"{byte_size(event.get('bytes_in_all', 0))} in all"
        )
    else:
        loss = f"training loss {figure(event.get('loss'))}"
        learnt = loss if event.get("stepped", 1) else "no step is left"
        text = (
            f"round {event.get('round', '?')}/{event.get('rounds', '?')}: {learnt}, "
            f"{duration(event.get('seconds', 0))}"
        )
    return clip(labelled("adapter", text), width)


def _shared(clients: Sequence[Event], key: str) -> str:
    """Return the clients' common value, or how many have which."""
    values = [str(client.get(key) or "none") for client in clients]
    kinds = sorted(set(values))
    if len(kinds) <= 1:
        return kinds[0] if kinds else "-"
    return ", ".join(f"{kind} ({values.count(kind)})" for kind in kinds)


def _backends(clients: Sequence[Event]) -> str:
    """Name the backends, and say whose circuits are only simulated."""
    simulated = [is_simulated(str(client.get("backend"))) for client in clients]
    if not any(simulated):
        return _shared(clients, "backend")
    which = "circuits are" if all(simulated) else "those of simulators are"
    return f"{_shared(clients, 'backend')}; {which} simulated, and counted as a device needs them"


def client_table(clients: Sequence[Event], classes: Sequence[str]) -> list[str]:
    """List each client's rows, in all and per class."""
    if not clients:
        return []
    sites = [str(c.get("site") or f"client {c.get('client')}") for c in clients]
    name = min(24, max(6, *map(len, sites)))
    lines = [f"  {'client':<{name}}  {'train':>7}  {'valid':>7}  train rows per class"]
    for site, client in list(zip(sites, clients, strict=True))[:MOST_CLIENTS]:
        counts = [int(n) for n in client.get("class_rows", [])]
        mix = ", ".join(f"{join_list([c])} {n:,}" for c, n in zip(classes, counts, strict=False))
        train, valid = int(client.get("train_rows", 0)), int(client.get("val_rows", 0))
        lines.append(f"  {clip(site, name):<{name}}  {train:>7,}  {valid:>7,}  {mix}")
    more = len(clients) - MOST_CLIENTS
    return [*lines, f"  ... and {more} more"] if more > 0 else lines


def round_lines(event: Event, clients: int, width: int = WIDTH) -> list[str]:
    """Describe a finished round: one line, and more only where the reason needs them.

    Parameters
    ----------
    event : Mapping
        A ``round`` event.
    clients : int
        Clients of the federation.
    width : int
        Columns.

    Returns
    -------
    list of str
        The figures with the reason beside or below them.
    """
    participants = [int(k) for k in event.get("participants", [])]
    figures = (
        f"{event.get('round', '?'):>5}  "
        f"{who(participants, clients):<8} "
        f"{steps_words(event.get('steps', {}), participants):<13} "
        f"{figure(event.get('loss')):>6}  "
        f"{percent(event.get('accuracy')):>8} "
        f"{short_count(event.get('circuits')):>9} "
        f"{percent(event.get('idle_share'), 0):>6}"
    )
    reason = one_line(event.get("reason"))
    if _REASON_COLUMN + len(reason) <= width:
        return [f"{figures:<{_REASON_COLUMN}}{reason}".rstrip()]
    indent = " " * 7
    return [figures, *textwrap.wrap(reason, width, initial_indent=indent, subsequent_indent=indent)]


def warnings(event: Event, width: int = WIDTH) -> list[str]:
    """Return a line for each failure of a round, or of the final test."""
    failures = [one_line(failure) for failure in event.get("failures") or []]
    lines = first_lines([f"     ! {failure}" for failure in failures], "metrics.jsonl", " " * 7)
    return [clip(line, width) for line in lines]


def who(participants: Sequence[int], clients: int) -> str:
    """Name the participants: ``all 4``, ``0 2 3``, or how many of many."""
    if clients and len(participants) == clients:
        return f"all {clients}"
    named = " ".join(str(k) for k in sorted(participants))
    return named if len(named) <= 8 else f"{len(participants)} of {clients}"


def steps_words(steps: Mapping[str, Any], participants: Sequence[int]) -> str:
    """Give each participant's steps in their order, or their range where there are many."""
    values = [int(steps[str(k)]) for k in sorted(participants) if str(k) in steps]
    if not values:
        return "-"
    if len(set(values)) == 1:
        return f"{values[0]} each" if len(values) > 1 else str(values[0])
    named = " ".join(str(value) for value in values)
    return named if len(named) <= 13 else f"{min(values)} to {max(values)}"


def untaught(client: Event) -> bool:
    """Whether a client of the ``prepared`` event fine-tunes no language model."""
    llm = str(client.get("llm", ""))
    return llm == "none" or llm.endswith("for embeddings only")


def short_count(value: Any) -> str:
    """Write a whole number in at most nine characters, or a dash for none."""
    if not is_number(value) or abs(value) < 1e7:
        return whole(value)
    size, letter = (1e6, "M") if abs(value) < 1e9 else (1e9, "G")
    return f"{value / size:,.1f} {letter}"


def result(summary: Event, width: int = WIDTH, clients: int = 0) -> list[str]:
    """Write the table at the end from ``summary.json``.

    Parameters
    ----------
    summary : Mapping
        What the file holds.
    width : int
        Columns.
    clients : int
        Clients of the federation; 0 if unknown.

    Returns
    -------
    list of str
        The scores, an empty line, and what the run spent.
    """
    test = summary.get("test") or {}
    baselines = summary.get("baselines") or {}
    kept = kept_rounds(summary)
    title = f"test, {whole(test.get('rows'))} rows" if test else "test"
    lines = [
        f"{title:<34}{'accuracy':>9}{'95 % interval':>14}{'macro-F1':>9}{'recall':>7}{'loss':>7}",
        _scores("quantum model" + (f" ({kept})" if kept else ""), test),
    ]
    if isinstance(test.get("unseen"), Mapping):
        lines.append(_scores("  without rows trained on", test["unseen"]))
    lines += [_scores(label, baselines[key]) for key, label in BASELINES if baselines.get(key)]
    teachers = [t for t in summary.get("teachers") or [] if isinstance(t, Mapping)]
    if teachers:
        mean = {key: _mean(teachers, key) for key in ("accuracy", "macro_f1", "loss")}
        lines.append(_scores("LLM teachers, own validation rows", mean))
    scored = scored_at(test, clients)
    return [
        *(clip(line, width) for line in lines),
        "",
        *([clip(labelled("test", scored), width)] if scored else []),
        *warning_lines(summary, width),
        *_wrapped([labelled(name, text) for name, text in _costs(summary)], width),
    ]


def _scores(label: str, figures: Event) -> str:
    found = wilson_interval(figures.get("accuracy"), figures.get("rows"))
    range_ = f"{100 * found[0]:.1f}-{100 * found[1]:.1f} %" if found else "-"
    return (
        f"{label:<34}{percent(figures.get('accuracy')):>9}{range_:>14}"
        f"{figure(figures.get('macro_f1')):>9}{figure(figures.get('macro_recall')):>7}"
        f"{figure(figures.get('loss')):>7}"
    )


def _mean(rows: Sequence[Event], key: str) -> float | None:
    values = [row[key] for row in rows if is_number(row.get(key))]
    return sum(values) / len(values) if values else None


def _costs(summary: Event) -> list[tuple[str, str]]:
    """Return what a run spent, each with its name."""
    ledger: Event = summary.get("ledger") or {}
    totals: Event = ledger.get("totals", ledger)
    seconds = (summary.get("seconds") or {}).get("total")
    circuits = describe_circuits(totals.get("circuits"), summary.get("simulated_circuits"))
    spent = (
        f"{_plural(summary.get('rounds', 0), 'round')}, {circuits}, "
        f"{whole(totals.get('steps'))} optimizer steps, {duration(seconds)}"
    )
    lines = [("spent", spent)]
    if totals.get("jobs"):
        device = f"{whole(totals.get('jobs'))} jobs, {whole(totals.get('shots'))} shots"
        if qpu := totals.get("qpu_seconds"):
            device += f", {duration(qpu)} of QPU time"
        lines.append(("devices", device))
    server: Event = summary.get("judge") or {}
    if server.get("jobs"):
        own = f"{server.get('backend')}: {whole(server.get('jobs'))} jobs of the server's own"
        lines.append(("judged on", f"{own}, {whole(server.get('circuits'))} circuits"))
    if agent := _agent_cost(summary.get("agent") or {}):
        lines.append(("agent", agent))
    privacy = describe_privacy(summary.get("privacy") or {})
    lines += [("" if at else "privacy", line) for at, line in enumerate(privacy)]
    if totals.get("bytes_up") or totals.get("bytes_down"):
        up, down = byte_size(totals.get("bytes_up")), byte_size(totals.get("bytes_down"))
        lines.append(("sent", f"{up} by the clients, {down} to them"))
    return [*lines, ("ended", one_line(summary.get("stop_reason")) or "-")]


def _agent_cost(agent: Event) -> str:
    """Describe what an agent's language model took; empty where none was called."""
    tokens = [agent.get(key) for key in ("prompt_tokens", "answer_tokens")]
    spent = sum(count for count in tokens if count is not None and is_number(count))
    if not spent:
        return ""
    cost = f"{whole(spent)} tokens, {duration(agent.get('seconds'))}"
    if ruled := agent.get("fallbacks"):
        cost += f"; the rule made {whole(ruled)} of {whole(agent.get('decisions'))} decisions"
    return cost
