"""The report's section on the agent: its decisions, what came of them, what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core import is_number
from reporting.charts import MANY_CLIENTS
from reporting.fedavg_reference import (
    Bill,
    History,
    circuits_run,
    plain_bill,
    plain_steps,
    prices,
    real,
    run_bill,
    saved,
    usual_paces,
    waited,
)
from reporting.formatting import NONE, amount, duration, figure, percent, whole
from reporting.parts import Asked, Asking, Cell, Noted, Section, Table
from reporting.record import Json, Record

LONGEST = 6_000
"""Characters that are shown of a prompt or an answer, where there are few."""

ALL_TEXTS = 600_000
"""Characters that all prompts and answers may have together."""

TALL = 24
"""Rounds beyond which the timeline scrolls in a window of its own."""

UNKNOWN = "not on record"

SUMS = (
    ("decisions", "Decisions", whole),
    ("asked", "Questions asked", whole),
    ("fallbacks", "Decisions that the rule made instead", whole),
    ("repaired", "Decisions that were repaired or bounded", whole),
    ("prompt_tokens", "Tokens of the questions", whole),
    ("answer_tokens", "Tokens of the answers", whole),
    ("seconds", "Time of the answers", duration),
)


def agent_section(record: Record) -> Section:
    """Return the section on the agent.

    Parameters
    ----------
    record : Record
        The run; any of its files may be missing or older.

    Returns
    -------
    Section
        Timeline, clients, what plain rounds would have cost and, of a language model, its
        questions.
    """
    history = History.of(record)
    decided = bool(record.decisions)
    return Section(
        "agent",
        "The agent",
        "What it decided before each round and why, what that cost by client, and what the same "
        "number of rounds would have cost without it.",
        tables=[
            *([timeline(record)] if decided else []),
            *([client_table(record, history), plain_table(record, history)] if decided else []),
            *([sums_table(record)] if asked_model(record) else []),
        ],
        empty="The agent decided nothing: the run ended before its first round.",
        asked=asked(record),
    )


# --- the timeline -------------------------------------------------------------------------


def timeline(record: Record) -> Table:
    """Return a row a decision: round, who, steps, reason, and who decided."""
    clients = len(record.client_ids)
    named = any(line.get("decided_by") for line in record.decisions)
    changed = any(line.get("guard") for line in record.decisions)
    guarded = " A small line below a reason is what the guard changed." if changed else ""
    rows: list[list[Cell]] = []
    for line in record.decisions:
        steps, stop = _steps(line), bool(line.get("stop"))
        rows.append(
            [
                whole(line.get("round")),
                "stop" if stop else _who(line, clients),
                NONE if stop else whole(sum(steps.values())),
                _reason(line),
                *([str(line.get("decided_by") or NONE)] if named else []),
            ]
        )
    return Table(
        ("Round", "Clients", "Steps", "Reason", *(["Decided by"] if named else [])),
        rows,
        frozenset({2}),
        title="Decisions",
        note=f"A row is a round.{guarded} Who took how many steps is in the picture above.",
        tall=len(rows) > TALL,
    )


def _steps(line: Json) -> dict[int, int]:
    """Return the steps of a decision's participants, as far as they are numbers."""
    told, steps = _listed(line.get("participants")), line.get("steps")
    found: Mapping[str, Any] = steps if isinstance(steps, Mapping) else {}
    return {k: int(n) for k in told if is_number(k) and (n := real(found.get(str(k)))) is not None}


def _who(line: Json, clients: int) -> str:
    count = len(_listed(line.get("participants")))
    return f"all {clients}" if count == clients else f"{count} of {clients}"


def _reason(line: Json) -> Cell:
    text = " ".join(str(line.get("reason") or NONE).split())
    notes = line.get("guard")
    notes = [notes] if isinstance(notes, str) else _listed(notes)
    return Noted(text, "guard: " + "; ".join(map(str, notes))) if notes else text


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


# --- the clients --------------------------------------------------------------------------


def client_table(record: Record, history: History) -> Table:
    """Return a row a client: rounds trained, circuits, spend, credit and waiting."""
    circuits, price, idle = circuits_run(record), prices(record, history), waited(record)
    spent = {k: count * price[k] for k, count in circuits.items() if k in price}
    total = sum(spent.values())
    credits = {client: history.credits(record, client) for client in history.clients}
    judged = any(credits.values())
    rows: list[list[Cell]] = []
    for client in history.clients:
        given = credits[client]
        rounds = [
            at for (at, k), event in history.trained.items() if k == client and not _lost(event)
        ]
        judgement = [
            _nats(given[-1] if given else None),
            _nats(sum(given) / len(given) if given else None),
            figure(history.last(client, "standing"), 2),
        ]
        rows.append(
            [
                f"{client} · {record.client_name(client)}",
                f"{len(rounds)} of {len(history.rounds)}",
                amount(circuits.get(client)),
                amount(spent.get(client)),
                percent(spent[client] / total) if client in spent and total else NONE,
                *(judgement if judged else []),
                duration(idle.get(client)),
            ]
        )
    credit = ("Last credit", "Mean credit", "Standing") if judged else ()
    head = ("Client", "Rounds trained", "Circuits", "Spend", "Share of spend", *credit, "Waiting")
    return Table(
        head,
        rows,
        frozenset(range(1, len(head))),
        title="The clients, in the finished rounds",
        note=_clients_note(record, judged=judged),
        folded=f"{len(rows)} clients" if len(rows) > MANY_CLIENTS else "",
    )


def _lost(event: Json) -> bool:
    return bool(event.get("dropped"))


def _nats(value: float | None) -> str:
    return figure(value, 4)


def _clients_note(record: Record, *, judged: bool) -> str:
    note = "Spend is circuits times their price (agent.circuit_prices)."
    if not judged:
        return f"{note} What a client's model was worth (credit) is {UNKNOWN} in this run."
    return (
        f"{note} Credit is what a client's model was worth in a round, in nats of the server's "
        "validation loss: below 0 the others were better off without it. Standing is its mean "
        "credit as a multiple of that round's mean size of credit; later rounds weigh more."
    )


# --- what plain rounds would have cost ------------------------------------------------------


def plain_table(record: Record, history: History) -> Table:
    """Return what the run's rounds cost beside as many plain ones, and the saving."""
    ran, plain, steps = run_bill(record, history), plain_bill(record, history), plain_steps(record)
    rounds = len(history.rounds)
    lines = (
        ("Circuits", "circuits", amount),
        ("Spend: circuits times their price", "spend", amount),
        ("Working seconds, all clients added up (estimate)", "busy", duration),
        ("Waiting seconds, all clients added up (estimate)", "idle", duration),
    )
    rows = [
        [name, _written(ran, key, write), _written(plain, key, write), _saving(ran, plain, key)]
        for name, key, write in lines
    ]
    head = ("Cost", "This run", f"{rounds} plain round{'s' * (rounds != 1)}", "Saved")
    return Table(
        head,
        rows if rounds else [],
        frozenset({1, 2, 3}),
        title="What plain QFL would have cost",
        note=_plain_note(record, history, steps),
    )


def _written(bill: Bill, key: str, write: Any) -> str:
    value = getattr(bill, key)
    return UNKNOWN if value is None else str(write(value))


def _saving(ran: Bill, plain: Bill, key: str) -> str:
    share = saved(getattr(ran, key), getattr(plain, key))
    if share is None:
        return NONE
    return percent(share) if share > -0.0005 else f"{percent(-share)} more"


def _plain_note(record: Record, history: History, steps: int | None) -> str:
    told = f"{steps} steps" if steps is not None else f"train.steps ({UNKNOWN})"
    note = (
        f"Plain: every client in every round that was run, {told} each. This is the cost of as "
        "many plain rounds, not a claim that plain QFL would have reached the same accuracy. "
        "Circuits follow from each client's price of a step and of a round. Seconds are of "
        "training alone, without fine-tuning and evaluation: those of the run from what its "
        "participants took, those of plain rounds an estimate from each client's measured seconds "
        "a step, which are noisy."
    )
    usual = usual_paces(history, steps or 1)
    untimed = [client for client in history.clients if client not in usual]
    if not untimed or not usual:
        return note
    who = ", ".join(map(str, untimed))
    return (
        f"{note} Timed for less than a plain round, and counted as the mean of the others: {who}."
    )


# --- what a language model was asked --------------------------------------------------------


def asked_model(record: Record) -> bool:
    """Say whether a language model decided."""
    return any("attempts" in line for line in record.decisions)


def sums_table(record: Record) -> Table:
    """Return the sums of a language model's questions, from the summary."""
    told: Any = record.summary.get("agent")
    sums: Json = told if isinstance(told, Mapping) else {}
    rows = [[name, write(sums[key]) if key in sums else UNKNOWN] for key, name, write in SUMS]
    return Table(
        ("Of the whole run", "Sum"),
        rows,
        frozenset({1}),
        title="What asking the language model took",
        note="" if sums else "The run left no summary.",
    )


def asked(record: Record) -> list[Asked]:
    """Return the questions of each round with their raw answers, cut where they are long."""
    rounds = [
        (line, [one for one in _listed(line.get("attempts")) if isinstance(one, Mapping)])
        for line in record.decisions
    ]
    texts = 2 * sum(len(attempts) for _, attempts in rounds)
    most = min(LONGEST, ALL_TEXTS // max(1, texts))
    return [
        Asked(
            _asked_head(line, attempts),
            [_asking(one, place, most) for place, one in enumerate(attempts, 1)],
        )
        for line, attempts in rounds
        if attempts
    ]


def _asked_head(line: Json, attempts: Sequence[Json]) -> str:
    many = f"{len(attempts)} question{'s' * (len(attempts) != 1)}"
    used = attempts[-1].get("problem") == ""
    end = "the answer was used" if used else "no usable answer"
    by = f", decided by {line['decided_by']}" if line.get("decided_by") else ""
    return f"Round {whole(line.get('round'))}: {many}, {end}{by}"


def _asking(attempt: Json, number: int, most: int) -> Asking:
    told = [
        f"Question {number}",
        f"{whole(attempt.get('prompt_tokens'))} tokens asked",
        f"{whole(attempt.get('answer_tokens'))} answered",
        duration(attempt.get("seconds")),
    ]
    return Asking(
        facts=", ".join(told),
        problem=str(attempt.get("problem") or ""),
        notes=[str(note) for note in _listed(attempt.get("notes"))],
        prompt=shortened(attempt.get("prompt"), most),
        answer=shortened(attempt.get("answer"), most),
    )


def shortened(text: Any, most: int) -> str:
    """Cut a text that is too long, and say that the record has all of it."""
    if text is None:
        return UNKNOWN
    whole_text = str(text)
    if len(whole_text) <= most:
        return whole_text
    left = len(whole_text) - most
    return f"{whole_text[:most]}\n[cut here: {left:,} more characters; agent.jsonl has all]"
