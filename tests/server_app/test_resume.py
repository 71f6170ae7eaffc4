"""A run that is broken off and goes on ends as one that was not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from bench.grid import InProcessGrid
from client_app.app import app
from client_app.site import forget
from core import UserError, flatten, parse_run, read_jsonl
from core.messages import TRAIN
from core.storage.checkpoints import last_checkpoint
from quantum.engines.base import Usage
from server_app.evaluation import CentralEvaluator
from server_app.resume import changed, load_history
from server_app.run import run
from strategies.context import Clock
from strategies.journal import RunJournal
from tests.conftest import NO_TEACHER, SMALL
from tests.strategies.test_state import member

TIMES = (
    "idle_share",
    "seconds",
    "busy_seconds",
    "idle_seconds",
    "train_seconds",
    "llm_seconds",
    "queue_seconds",
)
Whole = tuple[Path, Any]
WORDS = ("run.rounds=4", "data.train_rows=90", "data.test_rows=40", "train.steps=2")


class Killed(BaseException):
    """The process ends here, without a word."""


class Breaking(RunJournal):
    """Ends the process before or after the n-th thing that is written down."""

    def __init__(self, folder: Path, at: int, *, after: bool = False) -> None:
        super().__init__(folder)
        self.left, self.after = at, after
        for name in ("event", "decision", "underway", "checkpoint", "model", "summary"):
            setattr(self, name, self._counted(getattr(self, name)))

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> None:
            self.left -= 1
            if self.left < 0 and not self.after:
                raise Killed
            write(*given)
            if self.left < 0:
                raise Killed

        return counted


def start(folder: Path, *given: str, journal: RunJournal | None = None, **grid: Any) -> Any:
    forget()
    settings, _ = parse_run([], [*SMALL, *WORDS, *given])
    journal = journal or RunJournal(folder)
    journal.begin(settings)
    nodes = InProcessGrid(app, flatten(settings), settings.run.clients, **grid)
    return run(nodes, settings, journal)


def go_on(folder: Path, *given: str, journal: RunJournal | None = None, **grid: Any) -> Any:
    forget()
    settings, _ = parse_run([], [*SMALL, *WORDS, *given, "run.resume=true", f"run.folder={folder}"])
    past = load_history(folder, settings)
    journal = journal or RunJournal(folder)
    journal.resumed(settings, past.number)
    nodes = InProcessGrid(app, flatten(settings), settings.run.clients, **grid)
    return run(nodes, settings, journal, history=past)


def timeless(value: Any) -> Any:
    """Leave out what a clock says, and what going on itself cost."""
    if isinstance(value, dict):
        left_out = (*TIMES, "seconds_per_step", "repeated", "reused", "llm_reused")
        return {k: timeless(v) for k, v in value.items() if k not in left_out}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(folder: Path, summary: Any) -> dict[str, Any]:
    """Everything of a run that must not depend on its having been broken off."""
    rounds = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] in ("round", "client")]
    return {
        "summary": timeless(summary),
        "ledger": timeless(json.loads((folder / "ledger.json").read_text())),
        "decisions": timeless(list(read_jsonl(folder / "agent.jsonl"))),
        "rounds": timeless(rounds),
    }


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Say where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for k in one for d in differences(one[k], other[k], f"{at}.{k}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for k, (a, b) in pairs for d in differences(a, b, f"{at}[{k}]")]
    return [] if one == other else [f"{at}: {one} instead of {other}"]


def same_model(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


RULE = ("agent.kind=rule", "agent.fraction=0.7")
BANDIT = ("agent.kind=bandit", "agent.bandit=ucb", "agent.price=0", "agent.idle_price=0")
RANDOM = (
    "agent.kind=random",
    "evaluation.mode=federated",
    "evaluation.keep=average",
    "train.schedule=plateau",
    "train.learning_rate=0.5",
    "data.server_rows=0",
)


@pytest.mark.parametrize(
    ("given", "points"), [(RULE, (3, 8, 14, 19)), (BANDIT, (8, 19)), (RANDOM, (3, 14))]
)
def test_broken_off_anywhere_it_ends_with_the_same_numbers(
    given: tuple[str, ...], points: tuple[int, ...], tmp_path: Path
) -> None:
    start(tmp_path / "first", *given, "run.rounds=1")  # who fine-tunes is not the question here
    whole = start(tmp_path / "whole", *given)
    wanted = outcome(tmp_path / "whole", whole)
    for at in points:
        folder = tmp_path / f"broken-{at}"
        with pytest.raises(Killed):
            start(folder, *given, journal=Breaking(folder, at, after=at % 2 == 0))
        found = outcome(folder, go_on(folder, *given))
        for part in wanted:
            assert differences(found[part], wanted[part]) == []
        assert same_model(folder, tmp_path / "whole")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return the folder and summary of a run that was not broken off."""
    folder = tmp_path_factory.mktemp("whole")
    start(folder / "first", "run.rounds=1")  # who fine-tunes is not the question here
    return folder / "whole", start(folder / "whole")


def broken(folder: Path, at: int, *given: str, **grid: Any) -> None:
    with pytest.raises(Killed):
        start(folder, *given, journal=Breaking(folder, at), **grid)


def test_the_best_model_so_far_is_kept(tmp_path: Path) -> None:
    """The last round's is another one: with such a rate a loss goes up, at some seed."""
    for seed in range(6):
        given = ("train.learning_rate=3.0", f"run.seed={seed}", *NO_TEACHER)
        reference = tmp_path / f"whole{seed}"
        whole = start(reference, *given)
        if whole["best_round"] < whole["rounds"]:  # which one, depends on the machine's float sums
            break
    assert 1 <= whole["best_round"] < whole["rounds"]
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        start(folder, *given, journal=Breaking(folder, 30))
    assert last_checkpoint(folder).number == 4  # type: ignore[union-attr]
    assert timeless(go_on(folder, *given)) == timeless(whole)
    assert same_model(folder, reference)


def test_what_a_broken_round_cost_is_in_the_ledger_apart(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        start(folder, journal=Breaking(folder, 3, after=True))
    go_on(folder)
    ledger = json.loads((folder / "ledger.json").read_text())
    first = [e["circuits"] for e in ledger["entries"] if e["round"] == 1]
    again = [e for e in ledger["repeated"]["entries"] if e["round"] == 1]
    assert [e["circuits"] for e in again] == first
    assert ledger["repeated"]["totals"]["circuits"] == sum(first) > 0
    assert ledger["totals"]["circuits"] == sum(e["circuits"] for e in ledger["entries"])
    # What going on itself sent is there too.
    assert [e["client"] for e in ledger["repeated"]["entries"] if e["bytes_up"] and not e["steps"]]


def test_a_budget_counts_what_was_paid_twice(tmp_path: Path, whole_run: Whole) -> None:
    _, whole = whole_run
    circuits = whole["ledger"]["circuits"]
    budget = f"stop.circuits={circuits}"
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        start(folder, budget, journal=Breaking(folder, 3, after=True))
    summary = go_on(folder, budget)
    ledger = json.loads((folder / "ledger.json").read_text())
    assert summary["rounds"] < whole["rounds"]
    assert ledger["totals"]["circuits"] + ledger["repeated"]["totals"]["circuits"] <= circuits


def test_a_damaged_checkpoint_costs_a_round_and_no_more(tmp_path: Path, whole_run: Whole) -> None:
    _, whole = whole_run
    folder = tmp_path / "run"
    broken(folder, 16)
    last = max((folder / "checkpoint").glob("round-*"))
    (last / "model.safetensors").write_bytes(b"torn")
    summary = go_on(folder)
    assert timeless(summary) == timeless(whole)
    (event,) = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] == "resumed"]
    assert event["damaged"] == [last.name]
    ledger = json.loads((folder / "ledger.json").read_text())
    assert {e["round"] for e in ledger["repeated"]["entries"]} >= {event["round"] + 1}


def test_a_failed_run_goes_on_when_its_sites_are_mended(tmp_path: Path, whole_run: Whole) -> None:
    def spoil(order: Message, reply: Message) -> Message | None:
        late = order.metadata.group_id == "3"
        return None if order.metadata.message_type == TRAIN and late else reply

    _, whole = whole_run
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="round 3 has 0 valid replies"):
        start(folder, spoil=spoil)
    assert timeless(go_on(folder)) == timeless(whole)


def test_other_rows_at_a_site_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for client in range(3):
        rows = ["".join(rng.choice(list("ACGT"), 60)) for _ in range(30)]
        lines = [f"{row},{k % 2}" for k, row in enumerate(rows)]
        (tmp_path / f"{client}.csv").write_text("\n".join(["text,label", *lines, ""]))
    words = (
        "data.source=csv",
        f"data.path={tmp_path}/{{client}}.csv",
        "data.per_site=true",
        "data.labels=0,1",
        "data.kind=dna",
        "evaluation.mode=federated",
        "data.train_rows=0",
        "data.test_rows=0",
        "data.server_rows=0",
    )
    folder = tmp_path / "run"
    broken(folder, 9, *words)
    record = (folder / "checkpoint" / "round-001" / "state.json").read_text()
    assert not any(row in record for row in rows)
    path = tmp_path / "1.csv"
    before = path.read_text()
    lines = before.splitlines()
    path.write_text("\n".join([*lines[:5], lines[5].replace("A", "C", 1), *lines[6:], ""]))
    with pytest.raises(
        UserError, match=r"client 1 is not the one that .*: its rows are other ones"
    ):
        go_on(folder, *words)
    path.write_text("\n".join([*lines, lines[-1], lines[-2], ""]))
    with pytest.raises(UserError, match=r"client 1 is not the one that .*: train_rows was"):
        go_on(folder, *words)
    path.write_text(before)
    assert go_on(folder, *words)["status"] == "completed"


def test_sites_that_forgot_do_not_fine_tune_again(tmp_path: Path) -> None:
    given = ("llm.reuse=false", f"llm.store={tmp_path / 'store'}")
    folder = tmp_path / "run"
    broken(folder, 9, *given)
    done = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] == "client"]
    assert all(event["llm_tokens"] > 0 for event in done)
    go_on(folder, *given)
    later = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] == "client"][len(done) :]
    assert later
    assert all(event["llm_tokens"] == 0 for event in later)


def test_orders_name_the_first_part_of_the_run(tmp_path: Path) -> None:
    """A site finds the jobs and the budget that it began with."""
    seen = []

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == TRAIN:
            seen.append(order.content.config_records["config"]["run"])
        return reply

    settings, _ = parse_run([], [*SMALL, *WORDS])
    forget()
    folder = tmp_path / "run"
    journal = Breaking(folder, 9)
    journal.begin(settings)
    with pytest.raises(Killed):
        run(InProcessGrid(app, flatten(settings), 3, spoil=watch), settings, journal, "77")
    go_on(folder, spoil=watch)
    assert set(seen) == {"77"}


def test_a_shared_adapter_is_given_to_sites_that_lost_it(tmp_path: Path) -> None:
    given = ("llm.federated=ffa", "llm.rounds=1", "features.encoder=shared")
    store = tmp_path / "store"
    words = (*given, f"llm.store={store}")
    whole = start(tmp_path / "whole", *words)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        start(folder, *words, journal=Breaking(folder, 14))
    shutil.rmtree(store)
    summary = go_on(folder, *words)
    assert timeless(summary)["test"] == timeless(whole)["test"]
    assert summary["adapter"] == whole["adapter"]


def test_a_run_without_a_checkpoint_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    broken(folder, 0)
    with pytest.raises(UserError, match=r"no whole checkpoint in .* start it again"):
        go_on(folder)


def test_the_clock_counts_the_earlier_parts_and_the_phase_under_way() -> None:
    clock = Clock({"prepare": 10.0, "rounds": 100.0, "total": 120.0})
    with clock.phase("rounds"):
        timings = clock.timings()
        assert timings["rounds"] >= 100
        assert timings["total"] >= 120
    assert set(timings) == {"prepare", "rounds", "total"}
    assert clock.seconds["rounds"] >= timings["rounds"]
    again = Clock(timings)
    assert again.total >= timings["total"]


def test_what_the_evaluator_spent_before_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum.DeviceEngine", SimpleNamespace)
    engine = SimpleNamespace(usage=Usage(jobs=2, shots=30))
    earlier = {"jobs": 1, "qpu_seconds": 4.0}
    pipeline = SimpleNamespace(classifier=SimpleNamespace(engine=engine))
    evaluator: Any = SimpleNamespace(pipeline=pipeline, earlier=earlier)
    spent = CentralEvaluator.spent(evaluator)
    assert (spent["jobs"], spent["shots"], spent["qpu_seconds"]) == (3, 30, 4.0)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({}, ""),
        ({"seconds": 9.0, "backend": "aer", "site": "x"}, ""),
        ({"train_rows": 11}, "train_rows was 10 and is 11"),
        ({"classes": ["a", "c"]}, "classes was ['a', 'b'] and is ['a', 'c']"),
        ({"rows_digest": "key-other"}, "its rows are other ones"),
        ({"rows_digest": "store-other"}, ""),  # another store's secret: only numbers compare
        ({"rows_digest": "none"}, ""),
    ],
)
def test_a_site_must_be_the_one_it_was(change: dict[str, object], difference: str) -> None:
    before = replace(member(0).about, rows_digest="key-digest")
    assert changed(before, replace(before, **change)) == difference  # type: ignore[arg-type]
