"""Whole runs with sites that lie in their moments or updates: by default both are held off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from bench.attacks import ATTACKS, MOMENTS, spoil
from core import derive_seed
from core.messages import ARRAYS, PREPARE, unpack_parameters
from data import Moments, fit_projection, merge_moments
from tests.conftest import NO_TEACHER, Federate

PROJECTED = ("features.kind=kmer", "features.k=4", "features.shrinkage=0.1", "quantum.qubits=4")
FIVE = ("run.clients=5", "data.train_rows=200", *PROJECTED, *NO_TEACHER)
LIAR = 3


def dropped(ran: Any) -> list[tuple[int, int]]:
    return [(e["round"], e["client"]) for e in ran.events("client") if e["dropped"]]


@pytest.mark.parametrize("attack", ["scaled x10", "sign flip x10", "norm 99"])
def test_a_long_update_is_dropped_and_said(federate: Federate, attack: str) -> None:
    ran = federate(*FIVE, spoil=spoil(attack, (LIAR,)))
    assert dropped(ran) == [(1, LIAR), (2, LIAR)]
    assert all(event["aggregated"] == [0, 1, 2, 4] for event in ran.events("round"))
    said = ran.events("round")[0]["failures"]
    assert len(said) == 1
    assert f"client {LIAR}: update dropped: norm" in said[0]
    assert "5 times the median" in said[0]
    # What a dropped update cost is counted all the same.
    assert all(event["circuits"] for event in ran.events("client") if event["client"] == LIAR)


def test_a_flip_within_the_norm_counts_for_less(federate: Federate) -> None:
    ran = federate(*FIVE, "run.rounds=1", spoil=spoil("sign flip x3", (LIAR,)))
    shares = {e["client"]: e["clipped"] for e in ran.events("client")}
    assert dropped(ran) == []
    assert shares[LIAR] < 0.6
    assert all(shares[k] > shares[LIAR] for k in shares if k != LIAR)


def test_the_aggregate_is_of_updates_as_they_were_moved(federate: Federate) -> None:
    """By hand: the mean of five updates, one of them moved towards the median of each number."""
    sent: list[dict[str, np.ndarray]] = []
    lie = spoil("sign flip x3", (LIAR,))

    def watch(order: Any, reply: Any) -> Any:
        reply = lie(order, reply)
        if order.metadata.message_type == "train":
            sent.append(unpack_parameters(reply.content.array_records[ARRAYS]))
        return reply

    given = ("run.rounds=1", "aggregation.rule=uniform", "aggregation.clip_radius=1.5")
    ran = federate(*FIVE, *given, spoil=watch)
    flat = np.array([np.concatenate([one[k].ravel() for k in sorted(one)]) for one in sent], float)
    centre = np.median(flat, axis=0)
    away = np.sqrt(((flat - centre) ** 2).sum(axis=1))
    longest = 1.5 * max(np.median(away), 0.05)
    by_hand = np.mean(
        [
            centre + (one - centre) * min(1, longest / far)
            for one, far in zip(flat, away, strict=True)
        ],
        axis=0,
    )
    model = load_file(ran.folder / "model.safetensors")
    found = np.concatenate([model[k].ravel() for k in sorted(sent[0])])
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


@pytest.mark.parametrize("attack", [name for name in MOMENTS if "class" not in name])
def test_poisoned_moments_are_left_out_of_the_projection(federate: Federate, attack: str) -> None:
    honest: list[Moments] = []
    lie = spoil(attack, (LIAR,))

    def watch(order: Any, reply: Any) -> Any:
        reply = lie(order, reply)
        if order.metadata.message_type == PREPARE and order.metadata.dst_node_id != 1000 + LIAR:
            honest.append(Moments(**unpack_parameters(reply.content.array_records[ARRAYS])))
        return reply

    ran = federate(*FIVE, "run.rounds=1", "train.steps=1", spoil=watch)
    prepared = ran.events("prepared")[0]
    assert prepared["moments_left_out"] == [LIAR]
    (line,) = [line for line in prepared["warnings"] if "moments" in line]
    assert f"client {LIAR}: its moments are left out of the projection: " in line
    seed = derive_seed(0, "projection")
    fitted = fit_projection(merge_moments(honest), 4, "lda", 0.1, 3.0, seed)
    model = load_file(ran.folder / "model.safetensors")
    np.testing.assert_allclose(model["projection.matrix"], fitted.matrix, rtol=1e-9)


def test_moments_count_for_no_more_rows_than_the_site(federate: Federate) -> None:
    sent: dict[int, Moments] = {}
    lie = spoil("10^7 rows, sign flip x1", (LIAR,))

    def watch(order: Any, reply: Any) -> Any:
        reply = lie(order, reply)
        if order.metadata.message_type == PREPARE:
            arrays = unpack_parameters(reply.content.array_records[ARRAYS])
            sent[order.metadata.dst_node_id - 1000] = Moments(**arrays)
        return reply

    ran = federate(*FIVE, "run.rounds=1", "train.steps=1", spoil=watch)
    assert ran.events("prepared")[0]["moments_left_out"] == []
    lied, (rows, *_) = sent.pop(LIAR), sorted(one.rows for one in sent.values())
    assert lied.rows > 10**6
    share = 3 * rows / lied.rows
    counted = Moments(share * lied.count, share * lied.sums, share * lied.second)
    seed = derive_seed(0, "projection")
    wanted = fit_projection(merge_moments([*sent.values(), counted]), 4, "lda", 0.1, 3.0, seed)
    model = load_file(ran.folder / "model.safetensors")
    np.testing.assert_allclose(model["projection.matrix"], wanted.matrix, rtol=1e-6, atol=1e-9)


def test_honest_sites_of_strong_label_skew_are_all_used(federate: Federate) -> None:
    skew = ("data.partition=dirichlet", "data.alpha=0.1", "data.train_rows=400")
    ran = federate("run.clients=8", *skew, *NO_TEACHER)
    assert dropped(ran) == []
    assert ran.events("prepared")[0]["moments_left_out"] == []


def test_an_honest_run_says_nothing(federate: Federate) -> None:
    ran = federate(*FIVE, spoil=spoil(ATTACKS[0]))
    assert not [line for line in ran.events("prepared")[0]["warnings"] if "moments" in line]
    assert dropped(ran) == []
    assert all(event["failures"] == [] for event in ran.events("round"))
