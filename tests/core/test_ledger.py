from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import COST_KEYS, Cost, Ledger, idle_share, total, with_idle

seconds = st.floats(0, 1e6, allow_nan=False)
costs = st.dictionaries(
    st.integers(0, 9), st.builds(Cost, train_seconds=seconds, llm_seconds=seconds), max_size=6
)


def test_waiting_is_the_slowest_less_ones_own() -> None:
    waited = with_idle({0: Cost(train_seconds=1), 1: Cost(train_seconds=2, llm_seconds=3)})
    assert (waited[0].idle_seconds, waited[1].idle_seconds) == (4.0, 0.0)
    assert idle_share(waited.values()) == pytest.approx(4 / 10)
    assert idle_share([]) == 0.0


def test_totals_by_hand() -> None:
    ledger = Ledger()
    ledger.add(1, {1: Cost(circuits=5), 0: Cost(circuits=2, bytes_up=7)})
    ledger.add(2, {0: Cost(circuits=1)})
    written: dict[str, Any] = ledger.as_json()
    assert ledger.totals() == Cost(circuits=8, bytes_up=7)
    assert ledger.of(0).circuits == 3
    assert [(e["round"], e["client"]) for e in written["entries"]] == [(1, 0), (1, 1), (2, 0)]
    assert set(written["totals"]) == set(COST_KEYS)


@given(costs)
def test_somebody_never_waits_and_nobody_waits_less_than_nothing(by: dict[int, Cost]) -> None:
    waited = with_idle(by)
    assert all(cost.idle_seconds >= 0 for cost in waited.values())
    assert not by or min(cost.idle_seconds for cost in waited.values()) == 0
    assert 0 <= idle_share(waited.values()) <= 1


@given(st.lists(st.builds(Cost, circuits=st.integers(0, 10**9), steps=st.integers(0, 9))))
def test_total_equals_a_loop(rows: list[Cost]) -> None:
    circuits = steps = 0
    for row in rows:
        circuits, steps = circuits + row.circuits, steps + row.steps
    assert total(rows) == Cost(circuits=circuits, steps=steps)
