from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bench import clients
from bench.clients import JAX, LOOP, TOGETHER, line, loop, main, run_one, tasks, together
from bench.jax_training import by_hand, random_fleet
from core import DataError
from quantum import TrainTask
from quantum.engines.exact.reference import reference_expectations
from tests.quantum.conftest import qcnn

SMALL = ["--clients", "4", "--steps", "2", "--rows", "3", "--qubits", "2", "--subset", "2"]


@pytest.fixture
def work() -> list[TrainTask]:
    return tasks(random_fleet(4, 3, 2), 2, 2, "cpu")


def test_clients_differ_and_come_again() -> None:
    fleet, again = random_fleet(5, 32, 3), random_fleet(5, 32, 3)
    np.testing.assert_array_equal(fleet.features, again.features)
    assert fleet.features.shape == (5, 32, 3)
    assert not np.array_equal(fleet.features[0], fleet.features[1])
    assert fleet.soft_labels.sum(axis=-1) == pytest.approx(np.ones((5, 32)))
    assert set(np.unique(fleet.labels)) == {0, 1}
    assert len(fleet.part(1, 4)) == 3


def test_the_loop_is_scaled_and_agrees_with_one_call(
    work: list[TrainTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([10.0, 13.0])
    monkeypatch.setattr("bench.clients.time.perf_counter", lambda: next(ticks))
    outcome = loop(work, 2)
    assert outcome.seconds == 6.0  # 3 s for 2 of 4 clients
    monkeypatch.undo()
    np.testing.assert_allclose(together(work).losses[:2], outcome.losses, atol=1e-5)
    assert outcome.losses[1] == run_one(work[1])


def test_a_client_that_fails_ends_the_benchmark(
    work: list[TrainTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[object] = [DataError("nothing", "rows", "give some")]
    monkeypatch.setattr(clients, "train_together", lambda given: failed)
    with pytest.raises(DataError, match="give some"):
        together(work)


def test_a_line_compares_losses_first() -> None:
    losses = np.array([0.5, 0.25])
    text, agrees = line("x", clients.Outcome(losses + 5e-5, 6.0, 1.5), losses, 2.0)
    assert (text, agrees) == ("| x | 6.00 | 1.5 | 3.00x | 5e-05 | 5e-05 |", True)
    few = losses + np.array([1.9e-4, 0.0])  # one client only: the mean counts, the largest is shown
    text, agrees = line("x", clients.Outcome(few, 6.0), losses, 2.0)
    assert (text, agrees) == ("| x | 6.00 | - | 3.00x | 1e-04 | 2e-04 |", True)
    text, agrees = line("x", clients.Outcome(losses - 2e-4, 6.0), losses, 2.0)
    assert (text, agrees) == ("| x | 6.00 | - | differs by 0.0002 | 2e-04 | 2e-04 |", False)


def test_the_table_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # importing it fails
    assert main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [text.split(" | ")[0] for text in lines[3:]] == [
        f"| {n}" for n in (LOOP, TOGETHER, *JAX)
    ]
    assert all("not installed" in text for text in lines[5:])


def test_another_loss_ends_with_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clients.run_one
    monkeypatch.setattr(clients, "run_one", lambda task: real(task) + 0.01)
    assert main([*SMALL, "--only"]) == 1
    assert "differs by 0.005" in capsys.readouterr().out


def test_every_training_in_jax_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    """Where JAX is installed; two launches, the second of fewer clients."""
    pytest.importorskip("jax")
    assert main([*SMALL, "--together", "3"]) == 0
    assert "differs" not in capsys.readouterr().out.split("largest")[1]


def test_the_circuit_by_hand_is_the_plain_engine() -> None:
    pytest.importorskip("jax")
    ansatz = qcnn(3, 1, "paper")
    rng = np.random.default_rng(0)
    angles, x = rng.uniform(-1, 1, ansatz.angles), rng.uniform(-1, 1, (4, 3))
    expected = reference_expectations(ansatz, torch.tensor(angles), x)[:, 0]
    found = by_hand(ansatz)(angles.astype("f4"), x.astype("f4"))
    np.testing.assert_allclose(np.asarray(found), expected.numpy(), atol=1e-5)
