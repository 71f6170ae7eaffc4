from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.agents.choosing import Option, best_set, waiting


def worth(chosen: tuple[Option, ...], wait: float) -> float:
    return sum(option.value for option in chosen) - wait * waiting(chosen)


def test_those_that_pay_train_and_no_more_than_allowed() -> None:
    options = [Option(0, 5, 0.3), Option(1, 5, -0.1), Option(2, 5, 0.1), Option(3, 5, 0.2)]
    assert [o.client for o in best_set(options, 4)] == [0, 2, 3]
    assert [o.client for o in best_set(options, 2)] == [0, 3]


def test_where_nobody_pays_the_nearest_trains_alone() -> None:
    options = [Option(0, 5, -0.3), Option(1, 5, -0.1, tried=2), Option(2, 5, -0.1, tried=1)]
    assert [o.client for o in best_set(options, 3)] == [2]


def test_a_slow_client_is_left_out_where_the_others_waiting_is_dearer() -> None:
    options = [
        Option(0, 5, 0.3, seconds=1),
        Option(1, 5, 0.3, seconds=1),
        Option(2, 5, 0.1, seconds=9),
    ]
    assert [o.client for o in best_set(options, 3, wait=0.01)] == [0, 1]
    assert [o.client for o in best_set(options, 3, wait=0.005)] == [0, 1, 2]
    assert waiting(options) == pytest.approx(16)


def test_fewer_steps_of_a_slow_client_may_pay() -> None:
    slow = [Option(1, 5, 0.08, seconds=5), Option(1, 10, 0.1, seconds=10)]
    chosen = best_set([Option(0, 10, 0.3, seconds=5), *slow], 2, wait=0.01)
    assert [(o.client, o.steps) for o in chosen] == [(0, 10), (1, 5)]


@given(
    st.lists(st.tuples(st.integers(-4, 6), st.integers(0, 4)), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(-4, 6), st.integers(0, 4)), min_size=4, max_size=4),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.25, 1.0, 3.0]),
)
def test_no_set_is_worth_more(
    short: list[tuple[int, int]], long: list[tuple[int, int]], most: int, wait: float
) -> None:
    options = [Option(k, 5, v, seconds=s) for k, (v, s) in enumerate(short)]
    options += [Option(k, 10, v, seconds=s) for k, (v, s) in enumerate(long)]
    chosen = best_set(options, most, wait)
    every = [
        worth(one, wait)
        for size in range(1, most + 1)
        for clients in combinations(range(4), size)
        for one in product(*([o for o in options if o.client == k] for k in clients))
    ]
    assert len({o.client for o in chosen}) == len(chosen) <= most
    if max(every) > 0:
        assert worth(chosen, wait) == pytest.approx(max(every))
    else:
        assert chosen == (min(options, key=lambda o: (-o.value, o.seconds, o.client, o.steps)),)
