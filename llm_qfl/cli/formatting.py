"""The run's events as lines of text; pure, so that tests can read them.

Nothing here knows a terminal: a line is a string, at most `width` characters long.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from core import (
    BASELINES,
    byte_size,
    describe_circuits,
    describe_privacy,
    display_safe,
    duration,
    figure,
    is_number,
    is_simulated,
    join_list,
    percent,
    scored_at,
    whole,
    wilson_interval,
)

Event = Mapping[str, Any]

WIDTH = 100
"""Columns that our lines are made for."""

MOST_CLIENTS = 12
"""Rows of the header's table of clients; more are summed up."""

ROUND_HEAD = "round  clients  steps           loss  accuracy  circuits   idle  reason"
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_REASON_COLUMN = ROUND_HEAD.index("reason")


def header(event: Event, width: int = WIDTH) -> list[str]:
    """Describe what runs, from the ``prepared`` event."""
    clients: list[Event] = list(event.get("clients", []))
    rows = sum(int(client.get("train_rows", 0)) for client in clients)
    classes = [str(name) for name in event.get("classes", [])]
    lines = [
        _pair("data", f"{_data(event)}: {join_list(classes)}", width),
        _pair(
            "rows",
            f"{rows:,} to train on at {len(clients)} clients; held out: "
            f"{event.get('validation_rows', 0):,} for validation, "
            f"{event.get('test_rows', 0):,} for the final test",
            width,
        ),
        _pair("features", str(event.get("features", "-")), width),
        _pair(
            "model",
            f"{event.get('model', '-')}: {event.get('angles', 0)} angles, "
            f"{event.get('parameters', 0)} trainable parameters",
            width,
        ),
        _pair("backend", _backends(clients), width),
        _pair("local LLM", _shared(clients, "llm"), width),
        *([_pair("adapter", adapter_words(event["adapter"]), width)] if "adapter" in event else []),
        _pair("agent", f"{event.get('agent', '-')}; at most {_rounds(event)}", width),
    ]
    return [*lines, *warning_lines(event, width), *client_table(clients, classes, width)]


def warning_lines(said: Event, width: int = WIDTH) -> list[str]:
    """Say what is odd about the rows, from the ``prepared`` event or the summary."""
    found = said.get("warnings")
    warnings = found if isinstance(found, list) else []
    told = [_pair("warning", display_safe(line), 10**6) for line in warnings]
    return [part for line in told for part in _wrapped(line, width)]


def resumed_line(event: Event, width: int = WIDTH) -> str:
    """Say that a run goes on, from the ``resumed`` event."""
    after, there = int(event.get("round", 0)), len(event.get("clients", []))
    done = f"after round {after}" if after else "before its first round"
    passed = ", ".join(map(str, event.get("damaged", [])))
    told = f"; damaged, and passed over: {passed}" if passed else ""
    return _pair("goes on", f"{done}; {there} clients are there{told}", width)


def late_line(event: Event, width: int = WIDTH) -> str:
    """Tell of a ``late`` event: a reply whose round had gone on."""
    who = f"client {event.get('client')}, round {event.get('round')}: answered after its deadline"
    problem = event.get("problem")
    cost = f"its {whole(event.get('circuits'))} circuits are counted, its model is not used"
    return clip(f"  {who}; {problem or cost}", width)


def roll_line(event: Event, width: int = WIDTH) -> str:
    """Tell of a ``roll`` event: who has left, who is not done yet, and who is back."""
    told = (("gone", "gone"), ("busy", "still at an earlier order"), ("back", "back"))
    parts = [
        f"{_clients(event[key])} {words}"
        for key, words in told
        if isinstance(event.get(key), list) and event[key]
    ]
    return clip(f"  {'; '.join(parts)}", width)


def _clients(found: Sequence[Any]) -> str:
    return f"client{'s' * (len(found) > 1)} {', '.join(map(str, found))}"


def adapter_words(event: Event) -> str:
    """Say what the shared adapter came to."""
    return (
        f"{event.get('kind', 'shared')}, {byte_size(event.get('bytes', 0))}, "
        f"{event.get('rounds', 0)} rounds: loss {figure(event.get('loss'))}, "
        f"accuracy {percent(event.get('accuracy'))} on clients' validation rows"
    )


def adapter_line(event: Event, width: int = WIDTH) -> str:
    """Describe an ``adapter-begin`` or ``adapter`` event: the shared adapter under way."""
    if event.get("event") == "adapter-begin":
        said = (
            f"{event.get('kind', 'shared')}: {byte_size(event.get('bytes', 0))} each way, "
            f"{event.get('rounds', 0)} rounds, {event.get('clients', 0)} clients, "
            f"{byte_size(event.get('bytes_in_all', 0))} in all"
        )
    else:
        said = (
            f"round {event.get('round', '?')}/{event.get('rounds', '?')}: {_learnt(event)}, "
            f"{duration(event.get('seconds', 0))}"
        )
    return _pair("adapter", said, width)


def _learnt(event: Event) -> str:
    if not event.get("stepped", 1):
        return "no step is left"
    return f"training loss {figure(event.get('loss'))}"


def _rounds(event: Event) -> str:
    count = int(event.get("rounds", 0))
    return f"{count} round" + "s" * (count != 1)


def _data(event: Event) -> str:
    name = str(event.get("data", "-"))
    if event.get("synthetic") and "synthetic" not in name.lower():
        name += " (synthetic)"
    return name


def _pair(name: str, value: str, width: int) -> str:
    return clip(f"  {name:<10}{value}", width)


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


def client_table(clients: Sequence[Event], classes: Sequence[str], width: int) -> list[str]:
    """List each client's rows, in all and per class."""
    if not clients:
        return []
    name = min(24, max(6, *(len(_site(client)) for client in clients)))
    lines = [f"  {'client':<{name}}  {'train':>7}  {'valid':>7}  train rows per class"]
    for client in clients[:MOST_CLIENTS]:
        counts = [int(n) for n in client.get("class_rows", [])]
        mix = ", ".join(f"{join_list([c])} {n:,}" for c, n in zip(classes, counts, strict=False))
        train, valid = int(client.get("train_rows", 0)), int(client.get("val_rows", 0))
        lines.append(f"  {clip(_site(client), name):<{name}}  {train:>7,}  {valid:>7,}  {mix}")
    more = len(clients) - MOST_CLIENTS
    if more > 0:
        lines.append(f"  ... and {more} more")
    return [clip(line, width) for line in lines]


def _site(client: Event) -> str:
    return str(client.get("site") or f"client {client.get('client')}")


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
    below = textwrap.wrap(reason, width, initial_indent=indent, subsequent_indent=indent)
    return [figures, *below]


def warnings(event: Event, width: int = WIDTH) -> list[str]:
    """Return a line for each failure of a round, or of the final test."""
    failures = [one_line(failure) for failure in event.get("failures") or []]
    return [clip(f"     ! {failure}", width) for failure in failures]


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


def untaught(client: Event) -> bool:
    """Say whether a client of the ``prepared`` event fine-tunes no language model."""
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
    best = summary.get("best_round")
    model = "quantum model" + (f" (round {best})" if best else "")
    title = f"test, {whole(test.get('rows'))} rows" if test else "test"
    lines = [
        f"{title:<34}{'accuracy':>9}{'95 % interval':>14}{'macro-F1':>9}{'recall':>7}{'loss':>7}"
    ]
    lines.append(_scores(model, test))
    if isinstance(test.get("unseen"), Mapping):
        lines.append(_scores("  without rows trained on", test["unseen"]))
    lines += [_scores(label, baselines[key]) for key, label in BASELINES if baselines.get(key)]
    teachers = [t for t in summary.get("teachers") or [] if isinstance(t, Mapping)]
    if teachers:
        mean = {key: _mean(teachers, key) for key in ("accuracy", "macro_f1", "loss")}
        lines.append(_scores("LLM teachers, own validation rows", mean))
    scored = scored_at(test, clients)
    notes = [_pair("test", scored, width)] if scored else []
    notes += warning_lines(summary, width)
    facts = [part for line in _costs(summary) for part in _wrapped(line, width)]
    return [*(clip(line, width) for line in lines), "", *notes, *facts]


def _wrapped(line: str, width: int) -> list[str]:
    """Break a line that is too long; what goes below is indented like `_pair`'s values."""
    return textwrap.wrap(line, width, subsequent_indent=" " * 12, drop_whitespace=True) or [line]


def _asked(agent: Event) -> list[str]:
    """Say what asking a language model took; nothing where none was asked."""
    tokens = [agent.get(key) for key in ("prompt_tokens", "answer_tokens")]
    spent = sum(count for count in tokens if count is not None and is_number(count))
    if not spent:
        return []
    said = f"{whole(spent)} tokens, {duration(agent.get('seconds'))}"
    if ruled := agent.get("fallbacks"):
        said += f"; the rule made {whole(ruled)} of {whole(agent.get('decisions'))} decisions"
    return [_pair("agent", said, 10**6)]


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


def _costs(summary: Event) -> list[str]:
    ledger: Event = summary.get("ledger") or {}
    totals: Event = ledger.get("totals", ledger)
    seconds = (summary.get("seconds") or {}).get("total")
    rounds = summary.get("rounds", 0)
    circuits = describe_circuits(totals.get("circuits"), summary.get("simulated_circuits"))
    spent = (
        f"{rounds} round{'s' * (rounds != 1)}, {circuits}, "
        f"{whole(totals.get('steps'))} optimizer steps, {duration(seconds)}"
    )
    lines = [_pair("spent", spent, 10**6)]
    if totals.get("jobs"):
        qpu = totals.get("qpu_seconds")
        device = f"{whole(totals.get('jobs'))} jobs, {whole(totals.get('shots'))} shots"
        device += f", {duration(qpu)} of QPU time" if qpu else ""
        lines.append(_pair("devices", device, 10**6))
    judge: Event = summary.get("judge") or {}
    if judge.get("jobs"):
        said = f"{judge.get('backend')}: {whole(judge.get('jobs'))} jobs of the server's own"
        lines.append(_pair("judged on", f"{said}, {whole(judge.get('circuits'))} circuits", 10**6))
    lines += _asked(summary.get("agent") or {})
    told = describe_privacy(summary.get("privacy") or {})
    lines += [_pair("privacy" if not at else "", line, 10**6) for at, line in enumerate(told)]
    if totals.get("bytes_up") or totals.get("bytes_down"):
        up, down = byte_size(totals.get("bytes_up")), byte_size(totals.get("bytes_down"))
        lines.append(_pair("sent", f"{up} by the clients, {down} to them", 10**6))
    return [*lines, _pair("ended", one_line(summary.get("stop_reason")) or "-", 10**6)]
