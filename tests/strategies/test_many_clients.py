"""Work of the server at many clients: counted, not timed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from core import Cost, Ledger, total
from core import ledger as ledger_module
from core.formatting import MOST_LISTED, listed
from core.messages import ARRAYS, TRAIN
from strategies.agents import bandit
from strategies.agents.bandit import MOST_DEADLINES, Option, best_set
from strategies.decisions import Decision
from strategies.decisions.guard import guard
from strategies.decisions.llm_agent import choices
from strategies.decisions.parsing import parse_answer
from strategies.decisions.prompt import as_answer, question
from strategies.decisions.shown import MOST_SHOWN, shown_clients
from strategies.journal import RunJournal, decision_line
from tests.conftest import NO_TEACHER, Federate
from tests.strategies.agents.observations import seen, settings_of, view


def many(clients: int, **changes: Any) -> Any:
    views = [view(k, circuits_per_step=5, rounds_since=k % 7, loss=0.5) for k in range(clients)]
    return seen(views, losses=(0.6,), plain_spend=50.0 * clients, **changes)


def test_sums_of_a_ledger_cost_what_was_added_since(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, clients, read, values = 40, 25, [0], ledger_module._values

    def counted(cost: Cost) -> Any:
        read[0] += 1
        return values(cost)

    ledger = Ledger()
    monkeypatch.setattr(ledger_module, "_values", counted)
    for number in range(rounds):
        ledger.add(number, {k: Cost(circuits=k, train_seconds=0.1 * k) for k in range(clients)})
        ledger.totals(), ledger.paid(), ledger.of(3)
    assert read[0] < 10 * rounds * clients  # adding all of it up each round reads 40 times as much
    assert ledger.totals() == total(cost for _, _, cost in ledger.entries)
    for client in range(clients):
        mine = total(cost for _, who, cost in ledger.entries if who == client)
        assert ledger.of(client) == ledger.by_client()[client] == mine


def test_a_ledger_whose_entries_are_cut_back_forgets_their_sums() -> None:
    ledger = Ledger([(1, 0, Cost(circuits=2)), (2, 0, Cost(circuits=3))])
    assert ledger.totals().circuits == 5
    del ledger.entries[1]
    assert ledger.totals().circuits == ledger.of(0).circuits == 2


def test_the_messages_of_a_round_share_one_packed_model(federate: Federate) -> None:
    kept: list[Any] = []
    packed = set()

    def note(message: Any, reply: Any) -> Any:
        if message.metadata.message_type == TRAIN:
            kept.append(message.content.array_records[ARRAYS])  # so that no id is used twice
            packed.add(id(kept[-1]))
        return reply

    federate(*NO_TEACHER, spoil=note)
    assert (len(kept), len(packed)) == (6, 2)  # three clients, two rounds


def test_a_bandit_looks_at_few_sets_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, calls, until = random.Random(3), [0], bandit._best_until

    def counted(*given: Any) -> Any:
        calls[0] += 1
        return until(*given)

    monkeypatch.setattr(bandit, "_best_until", counted)
    options = [
        Option(k, m, draw.uniform(-0.1, 0.5), seconds=draw.uniform(1, 2) * m)
        for k in range(200)
        for m in (1, 2, 4)
    ]
    chosen = best_set(options, 20, wait=0.01)
    assert calls[0] <= MOST_DEADLINES < len(options)
    ranked = sorted(options, key=lambda option: option.rank)
    every = [until(deadline, ranked, 20, 0.01) for deadline in {one.seconds for one in options}]
    best = max(every, key=lambda found: found[1])[0]
    assert set(chosen) == set(best)


@pytest.mark.parametrize("clients", [MOST_SHOWN + 1, 2_000])
def test_a_prompt_of_many_clients_is_bounded_and_says_who_is_left_out(clients: int) -> None:
    shown = many(clients)
    asked = question(shown, 1)
    assert len(asked.text) < 5_000
    assert set(asked.schema["properties"]["steps"]["required"]) == {
        *(str(one.client) for one in shown_clients(shown)),
        "others",
    }
    assert f"The table has {MOST_SHOWN} of {clients} clients" in asked.text
    assert f"The other {clients - MOST_SHOWN} are left out of it" in asked.text
    offered = choices(shown, Decision.to_train({0: 9, clients - 1: 3}, "rule"), True)
    text = question(shown, 1, offered).text
    assert len(text) < 6_000
    for decision in offered.values():  # what an option means is exact, whoever is shown
        found = parse_answer(as_answer(decision, shown), shown)
        assert found.decision is not None
        assert (found.decision.steps, found.problem) == (decision.steps, "")


def test_others_are_all_clients_without_a_line() -> None:
    shown = many(100)
    named = shown_clients(shown)[0].client
    other = next(k for k in range(100) if k not in {one.client for one in shown_clients(shown)})
    answer = {"reason": "", "steps": {str(named): 7, "others": 4, str(other): 0}, "stop": False}
    found = parse_answer(json.dumps(answer), shown).decision
    assert found is not None
    assert found.steps[named] == 7
    assert other not in found.steps
    assert len(found.steps) == 1 + 100 - MOST_SHOWN - 1
    assert set(found.steps.values()) == {7, 4}


def test_those_that_waited_come_up_in_their_turn() -> None:
    shown = many(200)
    waited = [one for one in shown_clients(shown) if one.rounds_since == 6]
    assert len(waited) >= MOST_SHOWN // 2


def test_notes_and_lists_are_bounded() -> None:
    shown = many(500)
    wanted = Decision.to_train(dict.fromkeys(range(500), 900), "all")
    decision, notes = guard(wanted, shown, settings_of())
    assert len(decision.steps) == 500
    assert len(notes) == MOST_LISTED + 1
    assert notes[-1] == f"steps of {500 - MOST_LISTED} clients more bounded"
    assert listed(range(500)).endswith(f"and {500 - MOST_LISTED} more")


def test_the_costliest_go_first_however_many_there_are() -> None:
    views = [view(k, circuits_per_step=1 + k % 5, circuits_fixed=k) for k in range(60)]
    shown = seen(views, circuits_left=400)
    decision, _ = guard(Decision.to_train(dict.fromkeys(range(60), 5), ""), shown, settings_of())
    spent = sum(
        views[k].circuits_fixed + m * views[k].circuits_per_step for k, m in decision.steps.items()
    )
    dearest = max(views[k].circuits_fixed + 2 * views[k].circuits_per_step for k in decision.steps)
    left_out = [one for one in views if one.client not in decision.steps]
    assert spent <= 400
    assert all(one.circuits_fixed + 2 * one.circuits_per_step >= dearest for one in left_out)


def test_a_summary_holds_no_observation_of_every_client_and_round(tmp_path: Path) -> None:
    journal, shown = RunJournal(tmp_path), many(50)
    for number in range(3):
        decision = Decision.to_train({number: 5}, "one")
        journal.decision(decision_line("all", shown, decision, [], None))
    assert [line["participants"] for line in journal.decisions()] == [[0], [1], [2]]
    assert len(json.dumps(journal.decisions())) < 1_000
    assert '"observation"' in (tmp_path / "agent.jsonl").read_text()
