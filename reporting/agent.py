"""The report's section on the agent: its decisions, their costs, and questions to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from core.formatting import listed
from reporting.charts import CROWD, MANY_CLIENTS
from reporting.fedavg_reference import (
    Bill,
    History,
    by_client,
    fedavg_bill,
    fedavg_steps,
    prices,
    run_bill,
    saved,
    usual_paces,
)
from reporting.formatting import NONE, amount, duration, figure, percent, whole
from reporting.page import (
    CellWithNote,
    Columns,
    Question,
    RoundQuestions,
    Section,
    Table,
    section,
    source,
    table_of,
)
from reporting.record import Json, Record
from strategies.decisions.harmless import counted

LONGEST = 6_000
"""Characters that are shown of a prompt or an answer, where there are few."""

ALL_TEXTS = 600_000
"""Characters that all prompts and answers may have together."""

MOST_QUESTIONS = 300
"""Questions that a page shows of all rounds: a regulator asks one for each twelve clients."""

TALL = 24
"""Rounds beyond which the table of decisions scrolls in a window of its own."""

UNKNOWN = "not on record"

SUMS = (
    ("decisions", "Decisions", whole),
    ("asked", "Questions asked", whole),
    ("fallbacks", "Decisions that the rule made instead", whole),
    ("uninformed", "Of these, since its answers do not go by what it is told", whole),
    ("repaired", "Decisions that were repaired or bounded", whole),
    ("prompt_tokens", "Tokens of the questions", whole),
    ("answer_tokens", "Tokens of the answers", whole),
    ("seconds", "Time of the answers", duration),
)

COSTS = (
    ("circuits", "Circuits", amount),
    ("spend", "Spend: circuits times their price", amount),
    ("busy", "Working seconds, all clients added up (estimate)", duration),
    ("idle", "Waiting seconds, all clients added up (estimate)", duration),
)


def agent_section(record: Record, history: History | None = None) -> Section:
    """Return the section: decisions, clients, what plain FedAvg would have cost, questions.

    A crowd's clients are in the page's table of all clients.
    """
    tables = []
    if record.decisions:
        history = history or History(record)
        crowd = len(record.client_ids) > CROWD
        tables = [
            decision_table(record),
            *([] if crowd else [client_table(record, history)]),
            fedavg_table(record, history),
        ]
    if any("attempts" in line for line in record.decisions):
        tables.append(question_sums(record))
    return section("run", "agent", tables=tables, questions=questions(record))


def decision_table(record: Record) -> Table:
    """Return a row a decision: round, clients, steps, reason, and who decided."""
    named = any(line.get("decided_by") for line in record.decisions)
    changed = any(line.get("guard") for line in record.decisions)
    guarded = " A small line below a reason is what the guard changed." if changed else ""
    tests = counted(line.get("guard") or () for line in record.decisions)
    if tests:
        why = ", ".join(f"{test} {count}" for test, count in tests.items())
        guarded += (
            f" In {sum(tests.values())} rounds everybody trained, since leaving clients out might "
            f"have done harm: {why}."
        )
    columns: Columns = [
        ("round", "Round", whole),
        ("who", "Clients", str),
        ("steps", "Steps", whole),
        ("reason", "Reason", lambda cell: cell),
        *([("decided_by", "Decided by", lambda name: str(name or NONE))] if named else []),
    ]
    clients = len(record.client_ids)
    return table_of(
        columns,
        [{**line, **_decision(line, clients)} for line in record.decisions],
        numeric={2},
        title="Decisions",
        note=f"A row is a round.{guarded} Who took how many steps is in the picture above.",
        tall=len(record.decisions) > TALL,
    )


def _decision(line: Json, clients: int) -> dict[str, Any]:
    """Return who takes part, the steps of all together, and the reason with the guard's notes."""
    chosen, steps = line.get("participants") or (), line.get("steps") or {}
    reason: str | CellWithNote = " ".join(str(line.get("reason") or NONE).split())
    if line.get("guard"):
        reason = CellWithNote(str(reason), "guard: " + "; ".join(line["guard"]))
    if line.get("stop"):
        return {"who": "stop", "steps": None, "reason": reason}
    who = f"all {clients}" if len(chosen) == clients else f"{len(chosen)} of {clients}"
    return {"who": who, "steps": sum(steps.get(str(k), 0) for k in chosen), "reason": reason}


def client_table(record: Record, history: History) -> Table:
    """Return a row a client: rounds trained, circuits, spend, credit and waiting."""
    circuits, price = by_client(record, "circuits"), prices(record, history)
    idle, standing = by_client(record, "idle_seconds"), history.last("standing")
    spent = {k: count * price[k] for k, count in circuits.items() if k in price}
    total = sum(spent.values())
    credit, trained = history.credits(), history.counted.sum()
    last, mean = credit.ffill().tail(1), credit.mean()
    evaluated = bool(credit.notna().any(axis=None))
    rows = [
        {
            "client": f"{k} · {record.client_name(k)}",
            "trained": f"{trained[k]} of {len(record.round_ids)}",
            "circuits": circuits.get(k),
            "spend": spent.get(k),
            "share": spent[k] / total if k in spent and total else None,
            "last": last[k].iat[0] if evaluated else None,
            "mean": mean[k],
            "standing": standing.get(k),
            "idle": idle.get(k),
        }
        for k in record.client_ids
    ]
    credits = (
        ("last", "Last credit", _nats),
        ("mean", "Mean credit", _nats),
        ("standing", "Standing", lambda value: figure(value, 2)),
    )
    return table_of(
        (
            ("client", "Client", str),
            ("trained", "Rounds trained", str),
            ("circuits", "Circuits", amount),
            ("spend", "Spend", amount),
            ("share", "Share of spend", percent),
            *(credits if evaluated else ()),
            ("idle", "Waiting", duration),
        ),
        rows,
        title="The clients, in the finished rounds",
        note=_clients_note(evaluated),
        folded=f"{len(rows)} clients" if len(rows) > MANY_CLIENTS else "",
    )


def _nats(value: float) -> str:
    return figure(value, 4)


def _clients_note(evaluated: bool) -> str:
    credit = f"What a client's model was worth (credit) is {UNKNOWN} in this run."
    if evaluated:
        credit = source()["run"]["agent"]["credit"]
    return f"Spend is circuits times their price (agent.circuit_prices). {credit}"


def fedavg_table(record: Record, history: History) -> Table:
    """Return what the run's rounds cost beside as many rounds of plain FedAvg, and the saving."""
    ran, fedavg = run_bill(record, history), fedavg_bill(record, history)
    rounds = len(record.round_ids)
    rows = [
        [name, _cost(ran, key, write), _cost(fedavg, key, write), _saving(ran, fedavg, key)]
        for key, name, write in COSTS
    ]
    return Table(
        ("Cost", "This run", f"{rounds} round{'s' * (rounds != 1)} of FedAvg", "Saved"),
        rows if rounds else [],
        title="What FedAvg would have cost",
        note=_fedavg_note(history, fedavg_steps(record)),
    )


def _cost(bill: Bill, key: str, write: Callable[[Any], str]) -> str:
    value = getattr(bill, key)
    return UNKNOWN if value is None else write(value)


def _saving(ran: Bill, fedavg: Bill, key: str) -> str:
    share = saved(getattr(ran, key), getattr(fedavg, key))
    if share is None:
        return NONE
    return percent(share) if share > -0.0005 else f"{percent(-share)} more"


def _fedavg_note(history: History, steps: int | None) -> str:
    each = f"{steps} steps" if steps is not None else f"train.steps ({UNKNOWN})"
    note: str = source()["run"]["agent"]["fedavg"].format(each=each)
    usual = usual_paces(history, steps or 1)
    untimed = [client for client in history.record.client_ids if client not in usual.index]
    if not untimed or not len(usual):
        return note
    return (
        f"{note} Timed for less than a round of FedAvg, and counted as the mean of the others: "
        f"{listed(untimed)}."
    )


def question_sums(record: Record) -> Table:
    """Return the sums of the questions to a language model, from the summary."""
    sums = record.summary.get("agent") or {}
    return Table(
        ("Of the whole run", "Sum"),
        [[name, write(sums[key]) if key in sums else UNKNOWN] for key, name, write in SUMS],
        title="What asking the language model took",
        note="" if sums else "The run left no summary.",
    )


def questions(record: Record) -> list[RoundQuestions]:
    """Return the questions of each round with their raw answers; what is long or many is cut."""
    rounds = [(line, line["attempts"]) for line in record.decisions if line.get("attempts")]
    requests = sum(len(attempts) for _, attempts in rounds)
    each = requests if requests <= MOST_QUESTIONS else max(1, MOST_QUESTIONS // len(rounds))
    texts = 2 * sum(min(each, len(attempts)) for _, attempts in rounds)
    most = min(LONGEST, ALL_TEXTS // max(1, texts))
    return [
        RoundQuestions(
            _round_head(line, attempts)
            + f", the first {each} are here; agent.jsonl has all" * (len(attempts) > each),
            [_question(one, place, most) for place, one in enumerate(attempts[:each], 1)],
        )
        for line, attempts in rounds
    ]


def _round_head(line: Json, attempts: Sequence[Json]) -> str:
    many = f"{len(attempts)} question{'s' * (len(attempts) != 1)}"
    last = attempts[-1]
    end = "the answer was used" if last.get("problem") == "" else "no usable answer"
    end = f"uninformed: {last['uninformed']}" if last.get("uninformed") else end
    by = f", decided by {line['decided_by']}" if line.get("decided_by") else ""
    return f"Round {whole(line.get('round'))}: {many}, {end}{by}"


def _question(attempt: Json, number: int, most: int) -> Question:
    facts = [
        f"Question {number}",
        f"{whole(attempt.get('prompt_tokens'))} tokens asked",
        f"{whole(attempt.get('answer_tokens'))} answered",
        duration(attempt.get("seconds")),
    ]
    return Question(
        facts=", ".join(facts),
        problem=str(attempt.get("problem") or ""),
        notes=attempt.get("notes") or (),
        prompt=shortened(attempt.get("prompt"), most),
        answer=shortened(attempt.get("answer"), most),
    )


def shortened(text: str | None, most: int) -> str:
    """Cut a text that is too long, and say that the record has all of it."""
    if text is None:
        return UNKNOWN
    left = len(text) - most
    if left <= 0:
        return text
    return f"{text[:most]}\n[cut here: {left:,} more characters; agent.jsonl has all]"
