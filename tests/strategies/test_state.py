from __future__ import annotations

import pytest

from core import Cost, Settings, parse_run
from core.messages import SiteReport, TrainReport
from strategies import FederationState, Member


def member(client: int) -> Member:
    return Member(
        1000 + client,
        SiteReport(
            client=client,
            site="none",
            train_rows=10 * (client + 1),
            val_rows=5,
            test_rows=0,
            class_rows=[5, 5],
            classes=["a", "b"],
            data="none",
            kind="dna",
            features="none",
            backend="exact",
            llm="none",
            encoder="none",
            adapter_bytes=0,
            circuits_per_step=7,
            circuits_fixed=5,
            shots_per_circuit=0,
            seconds=0.0,
            rows_digest="none",
        ),
    )


def trained(loss: float, llm_loss: float, steps: int = 4) -> TrainReport:
    zeros = dict.fromkeys(TrainReport.__dataclass_fields__, 0)
    given = {
        "weight": 1.0,
        "loss": loss,
        "llm_loss": llm_loss,
        "llm_temperature": 1.0,
        "steps": steps,
    }
    return TrainReport(**{**zeros, **given})  # type: ignore[arg-type]


def begin() -> FederationState:
    return FederationState.begin([member(1), member(0)], parse_run([], ["train.steps=6"])[0])


def test_an_absent_client_keeps_the_distance_it_had() -> None:
    state = begin()
    state.trained(0, trained(0.9, 0.3), Cost(), 6)
    state.trained(1, trained(0.5, 0.4), Cost(), 6)
    state.finish_round([0, 1], 0.6, 0.7)
    assert [view.gap for view in state.views.values()] == pytest.approx([0.3, 0.1])
    assert state.alignments == pytest.approx([0.2])
    state.trained(1, trained(0.2, 0.4), Cost(), 6)
    state.finish_round([1], 0.25, 0.9)
    assert [view.gap for view in state.views.values()] == pytest.approx([0.3, 0.05])
    assert [view.rounds_since for view in state.views.values()] == [1, 0]
    assert state.views[1].trend == pytest.approx(-0.3)


def test_the_servers_llm_loss_is_the_mean_by_rows() -> None:
    state = begin()
    assert state.llm_loss() is None
    state.trained(0, trained(0.9, 0.3), Cost(), 6)
    assert state.llm_loss() == pytest.approx(0.3)
    state.trained(1, trained(0.9, 0.6), Cost(), 6)
    assert state.llm_loss() == pytest.approx((10 * 0.3 + 20 * 0.6) / 30)


def test_the_budget_of_steps_is_kept_though_fewer_were_taken() -> None:
    state = begin()
    state.trained(0, trained(0.9, 0.3, steps=2), Cost(), 6)
    assert state.views[0].steps == 6
    assert state.steps_done[0] == 2


def test_observation_is_ordered_and_bounded() -> None:
    settings = Settings()
    seen = begin().observe(3, settings)
    assert [view.client for view in seen.clients] == [0, 1]
    assert (seen.rounds_left, seen.circuits_left) == (settings.run.rounds - 2, None)


def test_what_failed_orders_may_have_cost_is_allowed_for_later() -> None:
    state = begin()
    assert state.most_circuits(0, 3) == 5 + 3 * 7
    state.settle({0: 3, 1: 2}, failed={0, 1}, exhausted={1})
    state.settle({0: 1}, failed={0, 1}, exhausted=set())
    assert state.owed == {0: 5 + 3 * 7 + 5 + 7, 1: 5 + 2 * 7}
    assert sorted(state.views) == [0]
    state.trained(0, trained(0.9, 0.3), Cost(), 6)
    assert 0 not in state.owed
