"""Tables of a run: columns and types of any run, sums equal to the summary's, old runs too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import Cost, Ledger, total
from core.ledger import COST_KEYS
from llm_qfl.result import Result
from reporting import frames
from reporting.record import Record, read_record
from tests.conftest import Ran

FRAMES: list[tuple[Callable[[Record], Any], dict[str, str]]] = [
    (frames.rounds_frame, frames.ROUNDS),
    (frames.clients_frame, frames.CLIENTS),
    (frames.decisions_frame, frames.DECISIONS),
    (frames.ledger_frame, frames.LEDGER),
]


def types(frame: Any) -> dict[str, str]:
    return {name: str(kind) for name, kind in frame.dtypes.items()}


@pytest.mark.parametrize(("make", "columns"), FRAMES)
def test_columns_and_types_are_the_same_of_a_whole_run_and_of_none(
    make: Callable[[Record], Any], columns: dict[str, str], small_run: Ran
) -> None:
    assert types(make(Record("none"))) == columns
    frame = make(read_record(small_run.folder))
    assert types(frame) == columns
    assert len(frame) > 0


@pytest.mark.parametrize(("make", "columns"), FRAMES)
def test_each_column_is_described(make: Callable[[Record], Any], columns: dict[str, str]) -> None:
    text = str(make.__doc__) + str(frames.ledger_frame.__doc__) * (make is frames.clients_frame)
    known = {"round", "client", "site"}
    known |= {name for name in columns if name.endswith("_seconds") and "_seconds``" in text}
    missing = [name for name in columns if name not in known and f"``{name}``" not in text]
    assert missing == []


def test_tables_of_a_run_agree_with_its_summary(small_run: Ran) -> None:
    result = Result(small_run.folder)
    spent, rounds, clients = small_run.summary["ledger"], result.rounds, result.clients
    for key in COST_KEYS:
        assert result.ledger[key].sum() == pytest.approx(spent[key], rel=1e-12), key
    assert rounds["circuits"].sum() == rounds["circuits_total"].iloc[-1] == spent["circuits"]
    assert list(rounds["round"]) == [1, 2]
    assert rounds["loss"].min() == small_run.summary["validation"]["loss"]
    assert len(clients) == rounds["trained"].sum()
    assert clients["steps"].sum() == spent["steps"]
    trains = result.decisions[result.decisions["trains"]]
    pairs = [list(zip(f["round"], f["client"], f["steps"], strict=True)) for f in (trains, clients)]
    assert pairs[0] == pairs[1]
    assert result.confusion.to_numpy().sum() == small_run.summary["test"]["rows"]
    assert result.confusion.index.name == "true"
    assert list(result.confusion) == ["human", "worm"]
    assert not result.ledger["repeated"].any()


whole = st.integers(0, 10**9)
costs = st.builds(Cost, **{key: whole for key in COST_KEYS if not key.endswith("seconds")})
places = st.tuples(st.integers(0, 20), st.integers(0, 9), costs)


@given(st.lists(places, max_size=20), st.lists(places, max_size=5))
def test_the_ledgers_sums_are_its_totals(
    entries: list[tuple[int, int, Cost]], again: list[tuple[int, int, Cost]]
) -> None:
    ledger = Ledger(entries, repeated=again)
    frame = frames.ledger_frame(Record("any", ledger=ledger.as_json()))
    once = frame[~frame["repeated"].astype(bool)]
    for key in COST_KEYS:
        assert once[key].sum() == getattr(ledger.totals(), key)
        assert frame[key].sum() == getattr(ledger.paid(), key)
    for client in {client for _, client, _ in entries}:
        mine = once[once["client"] == client]
        assert mine["circuits"].sum() == ledger.of(client).circuits
    assert total(cost for _, _, cost in entries) == ledger.totals()


OLD = Path(__file__).with_name("old_run")


def test_a_run_of_an_earlier_version_is_read() -> None:
    result = Result(OLD)
    assert result.status == "completed"
    assert list(result.rounds["round"]) == [1, 2]
    assert result.rounds["qpu_seconds_total"].isna().all()  # not recorded then: missing, not 0
    assert result.rounds["circuits"].sum() == result.summary["ledger"]["circuits"]
    assert result.ledger["circuits"].sum() == result.summary["ledger"]["circuits"]
    assert list(result.clients["aggregated"]) == [True] * 4
    assert result.settings["agent.kind"] == "rule"
    assert result.summary["judge"] == {"backend": "exact"}
    assert result.damaged == ()


def test_what_is_wrong_in_a_cell_is_missing(tmp_path: Path) -> None:
    lines = [
        {"event": "round", "round": 1, "loss": None, "circuits": 2.5, "jobs": "many"},
        {"event": "round", "round": 2, "loss": 0.5, "circuits": 7, "failures": ["a", "b"]},
        {"event": "round", "round": 2, "loss": 0.25, "circuits": 7, "failures": ["a", "b"]},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    frame = Result(tmp_path).rounds
    assert list(frame["round"]) == [1, 2]
    assert frame["loss"].isna().tolist() == [True, False]
    assert frame["loss"].iloc[1] == 0.25  # of two lines on a round the last counts
    assert frame["circuits"].isna().tolist() == [True, False]
    assert frame["jobs"].isna().all()
    assert frame["trained"].isna().all()
    assert frame["failures"].iloc[1] == "a; b"
