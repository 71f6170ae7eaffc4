"""Whole runs with each kind of distillation, and with rows that have no labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import QuantumSettings, Settings, TrainSettings
from quantum import build_ansatz, circuits_per_step
from server_app.prepare import with_step_costs
from strategies.context import PreparedFederation
from strategies.state import Member
from tests.conftest import Federate
from tests.strategies.test_state import member

TAUGHT = ("agent.kind=all", "train.batch_rows=8")


def rows_of(run: object) -> list[dict[str, float]]:
    return list(run.events("client"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["smoothing", "prior", "none"])
def test_a_kind_that_needs_no_teacher_fine_tunes_none(federate: Federate, kind: str) -> None:
    run = federate("llm.model=auto", "agent.kind=all", f"distill.kind={kind}")
    events = rows_of(run)
    assert events
    assert all(event["llm_loss"] is None for event in events)
    weights = {event["distill_weight"] for event in events}
    assert weights == {0.0} if kind == "none" else weights <= {0.0, 0.1, 0.2, 0.3, 0.4, 0.7}


def test_rows_without_labels_are_trained_on_and_reported_nowhere(
    federate: Federate, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    more = ["".join(rng.choice(list("ACGT"), 200)) for _ in range(30)]
    (tmp_path / "more.txt").write_text("\n".join(more))
    given = (*TAUGHT, "distill.weight=0.5")
    plain = federate(*given)
    helped = federate(*given, f"data.unlabelled={tmp_path / 'more.txt'}")
    pairs = list(zip(rows_of(plain), rows_of(helped), strict=True))
    assert pairs
    for one, other in pairs:
        for key in ("rows", "circuits", "llm_loss"):
            assert one[key] == other[key], key
        assert one["train_loss"] != other["train_loss"]


@pytest.mark.parametrize(("batch_rows", "expected"), [(0, 40), (16, 16)])
def test_a_step_costs_rows_without_labels_too_where_qubits_are_auto(
    batch_rows: int, expected: int
) -> None:
    """Ten rows have labels, thirty have none: else the server would refuse honest updates."""
    train = TrainSettings(batch_rows=batch_rows)
    given, run = (
        Settings(train=train, quantum=QuantumSettings(qubits=qubits)) for qubits in ("auto", 2)
    )
    most, own = (build_ansatz(one.quantum, 2).shifts for one in (given, run))
    one = member(0)
    about = replace(one.about, circuits_per_step=circuits_per_step(train, 40, most))
    federation = PreparedFederation((Member(one.node_id, about),), {}, b"", [1.0, 1.0])
    (found,) = with_step_costs(federation, run, given).members
    assert found.about.circuits_per_step == expected * (1 + 2 * own)
