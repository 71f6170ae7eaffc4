"""The exact engine's memory and the rows it plans for: pools, tapes, chunks, mini-batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from core import DistillSettings, QuantumSettings, TrainSettings
from quantum import TrainingData, build_classifier
from quantum.engines.exact.engine import EncodedStates, ExactEngine
from quantum.engines.exact.workspace import (
    CUDA_CHUNK,
    READOUT_STATES,
    STATES,
    WorkspacePool,
    amplitudes_at_once,
    chunk_amplitudes,
    shared_pool,
)
from quantum.training.problem import Problem
from tests.quantum.conftest import qcnn

CPU = torch.device("cpu")
GB = 10**9


def features(rows: int, n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (rows, n))


def moving(engine: ExactEngine, x: np.ndarray) -> EncodedStates:
    """Encode rows for a schedule that moves whole states."""
    return engine.encode(x, next(s for s in engine.schedules if s.middle.groups))


def test_a_data_set_is_encoded_for_the_rows_of_a_step() -> None:
    engine = ExactEngine(qcnn(8), "double")
    x = features(6000, 8)
    whole, batches = engine.prepare(x), engine.prepare(x, 32)
    assert whole.plan.schedule == engine.schedule_for(6000)
    assert batches.plan.schedule == engine.schedule_for(32)
    assert engine.schedule_for(32) != engine.schedule_for(6000)
    rows = torch.arange(0, 6000, 200)
    angles = torch.linspace(-2, 2, engine.ansatz.angles, dtype=torch.float64, requires_grad=True)
    found = []
    for prepared in (whole, batches):
        z = engine.expectations(angles, prepared.take(rows))
        found.append((z, torch.autograd.grad(z.square().sum(), angles)[0]))
    torch.testing.assert_close(found[0], found[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("batch_rows", "expected"), [(0, 6000), (32, 32), (7000, 6000)])
def test_training_encodes_for_its_batches(
    batch_rows: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = build_classifier(QuantumSettings(qubits=8), 2)
    engine = classifier.engine
    assert isinstance(engine, ExactEngine)
    ran: list[EncodedStates] = []
    real = engine.expectations

    def spy(angles: torch.Tensor, prepared: EncodedStates) -> torch.Tensor:
        ran.append(prepared)
        return real(angles, prepared)

    monkeypatch.setattr(engine, "expectations", spy)
    data = TrainingData(features(6000, 8), np.arange(6000) % 2)
    train, start = TrainSettings(batch_rows=batch_rows), classifier.initial(0)
    problem = Problem(classifier, start, data, train, DistillSettings(weight=0.0), seed=0)
    problem.by_autograd(problem.anchor, 0)
    assert [each.rows for each in ran] == [expected]
    assert ran[0].plan.schedule == engine.schedule_for(expected)


def test_programs_of_many_clients_share_one_pool() -> None:
    engines = [ExactEngine(qcnn(n)) for n in (4, 6, 6)]
    pools = {id(e.prepare(features(2, e.ansatz.n_qubits)).plan.pool) for e in engines}
    assert pools == {id(shared_pool(torch.float32, CPU))}
    assert shared_pool(torch.float64, CPU) is not shared_pool(torch.float32, CPU)


def test_clients_one_after_the_other_leave_one_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum.engines.exact.workspace._POOLS", {})
    sizes = []
    for _ in range(3):
        engine = ExactEngine(qcnn(6))
        angles = torch.zeros(engine.ansatz.angles, requires_grad=True)
        engine.expectations(angles, moving(engine, features(8, 6))).sum().backward()
        sizes.append(shared_pool(torch.float32, CPU).nbytes)
    assert sizes[0] > 0
    assert sizes == [sizes[0]] * 3


def test_threads_never_hold_the_same_workspace() -> None:
    """Ten threads take and give back 200 times; each must find its own mark when it gives back."""
    pool = WorkspacePool(torch.float32, CPU)
    wrong: list[int] = []

    def use(mark: int) -> None:
        for _ in range(200):
            room = pool.take()
            room.empty("mark", 1).fill_(mark)
            if room.empty("mark", 1).item() != mark:
                wrong.append(mark)
            pool.give(room)

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_tape_is_kept_where_no_gradient_can_be_asked_for() -> None:
    """Parameters want gradients, but an evaluation under no_grad gives its workspace back."""
    engine = ExactEngine(qcnn(6))
    prepared = moving(engine, features(4, 6))
    angles = torch.zeros(engine.ansatz.angles, requires_grad=True)
    pool = prepared.plan.pool
    room = pool.take()
    pool.give(room)
    with torch.no_grad():
        engine.expectations(angles, prepared)
    assert pool.take() is room


@pytest.mark.parametrize("readouts", [1, 3])
def test_a_step_holds_as_many_states_as_counted(
    readouts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two chunks of 16 rows, no tape: the most buffers of any schedule, and no fewer by far."""
    monkeypatch.setattr("quantum.engines.exact.execution_plan.TAPE_BYTES", 0)
    monkeypatch.setattr("quantum.engines.exact.workspace.CHUNK", 16 * 2**12)
    engine = ExactEngine(qcnn(12, readouts))
    angles = torch.zeros(engine.ansatz.angles, requires_grad=True)
    held = []
    for schedule in engine.schedules:
        if schedule.late is None or len(schedule.late.wires) < 8:
            monkeypatch.setattr("quantum.engines.exact.workspace._POOLS", {})
            prepared = ExactEngine(qcnn(12, readouts)).encode(features(32, 12), schedule)
            engine.expectations(angles, prepared).sum().backward()
            held.append(prepared.plan.pool.nbytes / (8 * 16 * 2**12))
    most = STATES + READOUT_STATES * readouts
    assert 0.8 * most < max(held) <= most


@pytest.mark.parametrize(
    ("free", "itemsize", "readouts", "expected"),
    [
        (80 * GB, 4, 1, CUDA_CHUNK),  # 18 states of 8 bytes: 9.7 GB, the cap
        (16 * GB, 4, 1, 2**25),  # 8 GB / 144 = 56 million
        (16 * GB, 8, 1, 2**24),  # 8 GB / 288 = 28 million
        (16 * GB, 4, 10, 2**24),  # 8 GB / (8 * 36) = 28 million
        (80 * GB, 8, 20, 2**25),  # 40 GB / (16 * 56) = 45 million
        (0, 8, 20, 2**20),  # never less than on a processor
    ],
)
def test_chunks_follow_memory_and_readouts(
    free: int, itemsize: int, readouts: int, expected: int
) -> None:
    assert chunk_amplitudes(free, itemsize, readouts) == expected


def test_free_memory_of_a_gpu_counts_what_torch_and_the_pool_hold_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quantum.engines.exact.workspace._POOLS", {})
    held = {"mem_get_info": (6 * GB, 80 * GB), "memory_reserved": 9 * GB, "memory_allocated": GB}
    for name, value in held.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    gpu = torch.device("cuda", 0)
    assert amplitudes_at_once(torch.float32, gpu, 1) == chunk_amplitudes(14 * GB, 4, 1) == 2**25
    monkeypatch.setattr(WorkspacePool, "nbytes", 6 * GB)
    assert amplitudes_at_once(torch.float32, gpu, 10) == chunk_amplitudes(20 * GB, 4, 10)
    assert amplitudes_at_once(torch.float32, CPU, 1) == 2**20
