"""A site's own account of epsilon: what it holds, what it refuses, and what a crash leaves."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import BudgetError, UserError, read_jsonl
from core.accounting import epsilon
from core.site_ledger import (
    Release,
    account_file,
    charge,
    recorded,
    row_digests,
    rows_key,
    runs_of,
    spent,
    spent_by_rows,
    summed_up,
)

DELTA = 1e-5


def file_in(folder: Path) -> Path:
    return account_file(folder, 3, rows_key(row_digests(["ACGT"])))


def test_releases_of_all_runs_add_up(tmp_path: Path) -> None:
    path = file_in(tmp_path)
    moments = [Release("moments", 4.0, 1), Release("moments", 8 / math.sqrt(2), 1)]
    charge(path, "a/3", moments, limit=0, delta=DELTA)
    assert spent(recorded(path), DELTA) == epsilon({4.0: 1, 8 / math.sqrt(2): 1}, DELTA)
    steps = Release("updates", 9.65, 60)
    charge(path, "b/3", [steps], limit=0, delta=DELTA)
    after = spent(recorded(path), DELTA)
    assert after == epsilon({4.0: 1, 8 / math.sqrt(2): 1, 9.65: 60}, DELTA)
    assert after == pytest.approx(3.974913, abs=1e-6)  # dp-accounting's own figure
    assert recorded(path) == [*moments, steps]
    assert runs_of(path) == ["a/3", "b/3"]
    assert summed_up(path) == "epsilon 3.97 at delta 1e-05, in 2 runs"
    line = list(read_jsonl(path))[-1]
    assert line.pop("date").endswith("+00:00")
    assert line == {
        "run": "b/3",
        "mechanism": "gaussian",
        "what": "updates",
        "multiplier": 9.65,
        "count": 60,
        "delta": DELTA,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_would_pass_the_limit_is_refused_and_not_written(tmp_path: Path) -> None:
    path, one = file_in(tmp_path), Release("updates", 2.0, 1)
    limit = epsilon({2.0: 2}, DELTA)
    for _ in range(2):
        charge(path, "a", [one], limit=limit, delta=DELTA)
    three = epsilon({2.0: 3}, DELTA)
    with pytest.raises(BudgetError, match=f"epsilon {three:.3g} over all runs .* = {limit:g}; no"):
        charge(path, "b", [one], limit=limit, delta=DELTA)
    assert len(recorded(path)) == 2
    charge(path, "b", [one], limit=three, delta=DELTA)
    assert spent(recorded(path), DELTA) == three


@given(st.permutations(range(6)), st.integers(0, 6))
def test_rows_are_the_same_in_any_order_and_split(order: list[int], cut: int) -> None:
    texts = [f"row {k}" for k in range(6)]
    known = rows_key(row_digests(texts))
    assert rows_key(row_digests([texts[k] for k in order])) == known
    assert rows_key(row_digests(texts[cut:] + texts[:cut])) == known
    assert rows_key(row_digests(texts[1:])) != known


def test_a_row_has_spent_what_all_accounts_that_have_it_tell(tmp_path: Path) -> None:
    """Other rows for the test, other columns, another client: the rows are the same ones."""

    def tell(client: int, texts: list[str], count: int, limit: float = 0) -> None:
        rows = row_digests(texts)
        path = account_file(tmp_path, client, rows_key(rows))
        one = Release("updates", 2.0, count)
        charge(path, "a", [one], limit=limit, delta=DELTA, rows=rows)

    tell(0, ["A", "C"], 1)
    tell(0, ["C", "G"], 2)
    tell(1, ["T"], 50)
    rows = row_digests(["A", "C", "G"])
    path = account_file(tmp_path, 5, rows_key(rows))
    assert spent_by_rows(path, rows, [], DELTA) == epsilon({2.0: 3}, DELTA)  # of C
    assert spent_by_rows(path, row_digests(["A"]), [], DELTA) == epsilon({2.0: 1}, DELTA)
    limit = epsilon({2.0: 4}, DELTA)
    tell(5, ["A", "C", "G"], 1, limit)
    with pytest.raises(BudgetError):
        tell(6, ["C", "new"], 1, limit)
    tell(6, ["G", "new"], 1, limit)
    assert stat.S_IMODE(path.with_suffix(".rows").stat().st_mode) == 0o600


def test_a_run_cannot_lower_epsilon_by_a_delta_of_its_own(tmp_path: Path) -> None:
    path, one = file_in(tmp_path), Release("updates", 2.0, 1)
    limit = epsilon({2.0: 1}, 0.1)
    with pytest.raises(BudgetError, match=f"epsilon {epsilon({2.0: 1}, DELTA):.3g} over"):
        charge(path, "a", [one], limit=limit, delta=0.1)


def test_clients_of_one_store_have_accounts_of_their_own(tmp_path: Path) -> None:
    assert account_file(tmp_path, 1, "f") != account_file(tmp_path, 2, "f")


def test_a_line_that_a_crash_broke_off_counts_for_nothing(tmp_path: Path) -> None:
    path, one = file_in(tmp_path), Release("updates", 2.0, 1)
    charge(path, "a", [one], limit=0, delta=DELTA)
    with path.open("ab") as file:
        file.write(b'{"run": "a", "multip')
    assert recorded(path) == [one]
    charge(path, "b", [one], limit=0, delta=DELTA)
    assert recorded(path) == [one, one]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"what": "updates", "multiplier": 2.0, "count": -1}'],
)
def test_a_damaged_account_is_refused(tmp_path: Path, line: str) -> None:
    path, one = file_in(tmp_path), Release("updates", 2.0, 1)
    charge(path, "a", [one], limit=0, delta=DELTA)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"has a damaged line; .*restore it"):
        charge(path, "b", [one], limit=0, delta=DELTA)


def test_an_account_that_cannot_be_written_lets_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "privacy").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        charge(file_in(tmp_path), "a", [Release("updates", 2.0, 1)], limit=0, delta=DELTA)


def _charge_often(path: Path, name: str) -> None:
    for _ in range(5):
        charge(path, name, [Release("updates", 2.0, 1)], limit=0, delta=DELTA)


def test_two_runs_at_once_lose_no_line(tmp_path: Path) -> None:
    path, fork = file_in(tmp_path), multiprocessing.get_context("fork")
    charge(path, "before", [Release("updates", 2.0, 1)], limit=0, delta=DELTA)
    both = [fork.Process(target=_charge_often, args=(path, name)) for name in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(recorded(path)) == 11


def test_two_runs_at_once_do_not_pass_the_limit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fork = file_in(tmp_path), multiprocessing.get_context("fork")
    limit = epsilon({2.0: 3}, DELTA)

    def slow(*given: Any) -> float:
        found = spent_by_rows(*given)
        time.sleep(0.05)  # without a lock all of them would come through here
        return found

    monkeypatch.setattr("core.site_ledger.spent_by_rows", slow)

    def until_refused() -> None:
        with contextlib.suppress(BudgetError):
            while True:
                charge(path, "a", [Release("updates", 2.0, 1)], limit=limit, delta=DELTA)

    both = [fork.Process(target=until_refused) for _ in range(3)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == 0
    assert len(recorded(path)) == 3
