"""Whole runs with each kind of distillation, and with rows that have no labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Federate

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
