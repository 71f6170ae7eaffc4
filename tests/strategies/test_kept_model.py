"""Which model a run keeps."""

from __future__ import annotations

import numpy as np
import pytest

from core.messages import pack_parameters, unpack_parameters
from strategies.kept_model import MOST_AVERAGED, KeptModel


def after(keep: str, losses: list[float]) -> KeptModel:
    kept = KeptModel(keep)
    for number, loss in enumerate(losses, start=1):
        arrays = {"a": np.full(2, number, np.float32), "b": np.array([loss], np.float32)}
        kept.add(number, pack_parameters(arrays), losses[:number])
    return kept


@pytest.mark.parametrize(("keep", "expected"), [("best", 2), ("average", 2), ("last", 4)])
def test_a_round_is_kept(keep: str, expected: int) -> None:
    kept = after(keep, [0.6, 0.4, 0.5, 0.45])
    assert kept.round == expected
    assert kept.arrays is not None
    assert unpack_parameters(kept.arrays)["a"].tolist() == [expected, expected]


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [(1, None), (2, None), (3, [2, 3]), (4, [3, 4]), (7, [4, 5, 6, 7]), (20, [16, 17, 18, 19, 20])],
)
def test_the_later_half_is_averaged_and_five_at_most(
    rounds: int, expected: list[int] | None
) -> None:
    kept = after("average", [0.5] * rounds)
    found = kept.average(rounds)
    assert (found and found[0]) == expected
    assert len(kept.recent) == min(rounds, MOST_AVERAGED)
    if found and expected:
        mean = unpack_parameters(found[1])
        assert mean["a"].dtype == np.float32
        assert mean["a"].tolist() == [np.mean(expected)] * 2


def test_nothing_is_averaged_where_one_round_is_kept() -> None:
    assert after("best", [0.5] * 6).average(6) is None


@pytest.mark.parametrize(("loss", "rounds"), [(0.39, [3, 4]), (0.4, [3, 4]), (0.41, [])])
def test_the_average_is_kept_where_it_is_not_worse(loss: float, rounds: list[int]) -> None:
    kept = after("average", [0.6, 0.4, 0.5, 0.45])
    found = kept.average(4)
    assert found is not None
    kept.choose(*found, (loss, 0.8), 0.4)
    assert kept.averaged == rounds
    assert kept.scores == ((loss, 0.8) if rounds else None)
    assert kept.round == 2


def test_the_newest_models_survive_a_checkpoint() -> None:
    kept = after("average", [0.5] * 12)
    again = KeptModel("average")
    again.unpack(kept.packed())
    assert sorted(again.recent) == [8, 9, 10, 11, 12]
    one, other = kept.average(12), again.average(12)
    assert one is not None
    assert other is not None
    assert one[0] == other[0]
    for name, array in unpack_parameters(one[1]).items():
        np.testing.assert_array_equal(array, unpack_parameters(other[1])[name])
