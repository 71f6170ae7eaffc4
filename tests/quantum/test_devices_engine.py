"""The devices' engine on Aer: shot statistics, one job a step, costs, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import (
    BackendError,
    BudgetError,
    DistillSettings,
    HardwareSettings,
    QuantumSettings,
    TrainSettings,
)
from quantum import Host, TrainingData, Usage, build_classifier, evaluate, metered, train_local
from quantum.costs import circuits_before_steps, circuits_per_step
from quantum.engines.base import DeviceEngine, evaluate_points
from quantum.engines.devices.aer import AerService, expectations, finished_job
from quantum.engines.devices.base import Budget, Request
from quantum.engines.devices.engine import precision_of

SHOTS = 4000


def open_classifier(
    device_store: Path, backend: str = "aer", classes: int = 2, **hardware: Any
) -> Any:
    quantum = QuantumSettings(qubits=3, backend=backend)
    own = HardwareSettings(**{"shots": SHOTS, "layout_trials": 1, **hardware})
    host = Host(own, seed=5, store=device_store, run="test")
    return build_classifier(quantum, classes, host)


def rows(count: int = 5, classes: int = 2) -> TrainingData:
    rng = np.random.default_rng(2)
    features = rng.uniform(-1.5, 1.5, (count, 3))
    return TrainingData(features, rng.integers(0, classes, count))


@pytest.mark.parametrize("classes", [2, 3])
def test_counted_expectations_are_the_exact_engines_within_shot_error(
    device_store: Path, classes: int
) -> None:
    device = open_classifier(device_store, classes=classes)
    exact = build_classifier(QuantumSettings(qubits=3, precision="double"), classes)
    points = np.random.default_rng(0).normal(0, 1, (4, exact.angles))
    features = rows().features
    found, wanted = (
        evaluate_points(c.engine, points, c.prepare(features)) for c in (device, exact)
    )
    assert found.shape == wanted.shape == (4, 5, 3)
    error = np.sqrt((1 - wanted**2).clip(1 / SHOTS) / SHOTS)
    assert np.abs((found - wanted) / error).max() < 5
    assert np.abs((found - wanted) / error).max() > 0.5  # shots were counted, not computed


def test_noise_shrinks_expectations(device_store: Path) -> None:
    features = np.random.default_rng(1).uniform(-1.5, 1.5, (40, 3))
    found = []
    for backend in ("aer", "aer:manila"):
        one = open_classifier(device_store, backend)
        points = np.random.default_rng(0).normal(0, 1, (1, one.angles))
        found.append(evaluate_points(one.engine, points, one.prepare(features))[0, :, 0])
    slope = float(found[1] @ found[0] / (found[0] @ found[0]))
    assert 0.5 < slope < 0.97


def test_expectations_of_counts_closed_form() -> None:
    counts = {"0x0": 10, "0x1": 30, "0x2": 40, "0x3": 20}
    assert expectations(counts, [[(1.0, [0])], [(1.0, [1])]]) == pytest.approx(
        [(50 - 50) / 100, (40 - 60) / 100]
    )


@pytest.mark.parametrize("optimizer", ["auto", "spsa", "parameter-shift", "cobyla"])
def test_a_step_is_one_job_and_costs_what_was_counted(device_store: Path, optimizer: str) -> None:
    device = open_classifier(device_store, shots=16)
    train = TrainSettings(optimizer=optimizer, batch_rows=4)  # type: ignore[arg-type]
    distill = DistillSettings(weight=0)
    result = train_local(device, device.initial(0), rows(), train, distill, steps=3)
    used, before = device.engine.usage, circuits_before_steps(train, 5)
    assert used.jobs == 3 + bool(before)
    assert used.circuits == result.circuits
    assert used.circuits == before + 3 * circuits_per_step(train, 5, device.angles, "aer")
    assert used.shots == 16 * used.circuits
    _, judged = evaluate(device, result.parameters, rows().features)
    assert device.engine.usage - used == Usage(1, judged, 16 * judged)


def test_only_a_job_beyond_the_limit_is_split(device_store: Path) -> None:
    features = rows(10).features
    found = []
    for limit, jobs in ((0, 1), (10, 1), (4, 3)):
        one = open_classifier(device_store, job_circuits=limit)
        point = np.zeros((1, one.angles))
        found.append(evaluate_points(one.engine, point, one.prepare(features)))
        assert one.engine.usage.jobs == jobs
        assert one.engine.quote(10)[0] == jobs
    assert found[0].shape == found[2].shape
    np.testing.assert_allclose(found[0], found[2], atol=5 * (2 / SHOTS) ** 0.5)


def test_same_seed_same_shots_and_labels_differ(device_store: Path) -> None:
    found = []
    for label in ("round 1", "round 1", "round 2"):
        one = open_classifier(device_store)
        point = np.full((1, one.angles), 0.3)
        one.engine.begin(label)
        found.append(evaluate_points(one.engine, point, one.prepare(rows().features)))
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize("backend", ["aer:manila", "fake:manila"])
def test_shots_do_not_depend_on_flowers_number_of_the_run(device_store: Path, backend: str) -> None:
    """Flower draws that number; the same seed gives the same numbers all the same."""
    found = []
    for run, seed in (("1/0", 5), ("2/0", 5), ("2/1", 5), ("1/0", 6)):
        own = HardwareSettings(shots=200, layout_trials=1)
        host = Host(own, seed=seed, layout_seed=0, store=device_store / str(seed), run=run)
        one: Any = build_classifier(QuantumSettings(qubits=3, backend=backend), 2, host)
        one.engine.begin("round 1")
        point = np.full((1, one.angles), 0.3)
        found.append(evaluate_points(one.engine, point, one.prepare(rows().features)))
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert (found[0] != found[3]).any()


def test_precision_instead_of_shots(device_store: Path) -> None:
    one = open_classifier(device_store, shots=0, precision=0.05)
    evaluate_points(one.engine, np.zeros((1, one.angles)), one.prepare(rows().features))
    assert one.engine.usage == Usage(1, 5, 5 * 400)
    assert open_classifier(device_store, shots=0).engine.shots == 1024


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"budget_jobs": 2}, "hardware.budget_jobs = 2 with 2 spent"),
        ({"budget_circuits": 19}, "hardware.budget_circuits = 19 with 16 spent"),
        ({"budget_shots": 20 * 16}, "hardware.budget_shots"),
    ],
)
def test_budget_is_checked_before_a_job(
    device_store: Path, budget: dict[str, Any], said: str
) -> None:
    """The steps that were paid count; an instruction that cannot begin is an error."""
    device = open_classifier(device_store, shots=16, **budget)
    train, distill = TrainSettings(batch_rows=4), DistillSettings(weight=0)
    result = train_local(device, device.initial(0), rows(), train, distill, steps=5)
    assert (result.steps, device.engine.usage.jobs) == (2, 2)
    with pytest.raises(BudgetError, match=said):
        train_local(device, device.initial(0), rows(), train, distill, steps=5)
    assert device.engine.usage.jobs == 2


@pytest.mark.parametrize("optimizer", ["spsa", "parameter-shift", "cobyla"])
def test_paid_steps_count_and_the_last_job_is_reserved(device_store: Path, optimizer: str) -> None:
    device = open_classifier(device_store, shots=16, budget_jobs=4)
    train = TrainSettings(optimizer=optimizer, batch_rows=4)  # type: ignore[arg-type]
    distill = DistillSettings(weight=0)
    with metered(device, "train, round 1") as meter:
        meter.reserve(5)
        result = train_local(device, device.initial(0), rows(), train, distill, steps=9)
        assert result.steps == 3 - (optimizer == "cobyla")
        assert device.engine.usage.jobs == 3
        meter.reserve()
        _, judged = evaluate(device, result.parameters, rows().features)
        assert meter.cost(result.circuits + judged)["jobs"] == 4


def test_a_budget_outlives_the_process(device_store: Path) -> None:
    for jobs in (1, 0):
        device = open_classifier(device_store, shots=16, budget_jobs=1)  # as in another process
        device.engine.begin(f"round {jobs}")
        if jobs:
            evaluate(device, device.initial(0), rows().features)
            continue
        with pytest.raises(BudgetError, match="budget_jobs = 1 with 1 spent"):
            evaluate(device, device.initial(0), rows().features)


def test_what_a_failed_instruction_cost_is_reported_with_the_next(device_store: Path) -> None:
    device = open_classifier(device_store, shots=16)

    def failing() -> None:
        with metered(device, "one"):
            evaluate(device, device.initial(0), rows().features)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    with metered(device, "two") as meter:
        evaluate(device, device.initial(0), rows().features)
        assert meter.cost(5)["jobs"] == 2
    with metered(device, "three") as meter:
        assert meter.cost(0)["jobs"] == 0


@pytest.mark.parametrize("shots", [1, 32, 100, 128, 300, 513, 1000, 8192, 1_000_000])
def test_primitives_run_as_many_shots_as_are_counted(shots: int) -> None:
    """Qiskit's rule is ceil(1 / precision²)."""
    precision = precision_of(shots)
    assert math.ceil(1.0 / precision**2) == shots
    assert precision == pytest.approx(1 / math.sqrt(shots))


def test_a_device_has_no_autograd(device_store: Path) -> None:
    device = open_classifier(device_store)
    assert isinstance(device.engine, DeviceEngine)
    angles = torch.zeros(device.angles, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no autograd"):
        device.engine.expectations(angles, device.prepare(rows().features))


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("aer:nowhere", r"'aer:nowhere'.*accepted: .*change quantum\.backend"),
        ("fake:brisban", r"'fake:brisban'.*fake:brisbane"),
        ("fake:armonk", r"armonk.*1 qubit"),
    ],
)
def test_wrong_device_is_one_clear_line(device_store: Path, backend: str, message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        open_classifier(device_store, backend)
    assert "\n" not in str(caught.value)


def test_two_qubit_gates_are_the_transpiled_circuits(device_store: Path) -> None:
    device = open_classifier(device_store, "aer:manila")
    assert device.two_qubit_gates == device.engine.circuit.facts.two_qubit_gates
    assert device.two_qubit_gates >= build_classifier(QuantumSettings(qubits=3), 2).two_qubit_gates


def test_least_busy_stays_the_backend_of_the_run(device_store: Path, monkeypatch: Any) -> None:
    """Another backend in the next process would not know the jobs of this one."""
    from qiskit_ibm_runtime.fake_provider import FakeLimaV2, FakeManilaV2

    asked: list[str] = []
    busy = {"least_busy": FakeManilaV2}

    def pick(service: Any, name: str, qubits: int, kind: str = "ibm") -> Any:
        asked.append(name)
        return busy.get(name, FakeManilaV2)()

    monkeypatch.setattr("quantum.engines.devices.backends.connect", lambda account: None)
    monkeypatch.setattr("quantum.engines.devices.backends.pick_backend", pick)
    for run, least in (("7/0", FakeManilaV2), ("7/0", FakeLimaV2), ("8/0", FakeLimaV2)):
        busy["least_busy"] = least
        host = Host(HardwareSettings(layout_trials=1), store=device_store, run=run)
        build_classifier(QuantumSettings(qubits=3, backend="ibm:least_busy"), 2, host)
    assert asked == ["least_busy", "fake_manila", "least_busy"]


def test_a_jobs_key_outlives_a_calibration(device_store: Path, monkeypatch: Any) -> None:
    """A client that comes back after a calibration has another circuit, and the same jobs."""
    keys = []
    for calibrated in ("Monday", "Tuesday"):
        monkeypatch.setattr(
            "quantum.engines.devices.circuits.calibrated_at", lambda backend, day=calibrated: day
        )
        one = open_classifier(device_store, "aer:manila")
        one.engine.begin("train, round 1")
        keys.append((one.engine.circuit.key, one.engine._names(np.zeros((2, 3)))))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] == keys[1][1]


def test_a_job_paid_in_vain_is_counted(device_store: Path, monkeypatch: Any) -> None:
    """A job that fails costs all the same, and the next report says so."""
    device = open_classifier(device_store, shots=16)
    good = AerService.submit
    monkeypatch.setattr(AerService, "submit", lambda *given: finished_job((), "empty"))
    with pytest.raises(BackendError), metered(device, "one"):
        evaluate(device, device.initial(0), rows().features)
    monkeypatch.setattr(AerService, "submit", good)
    with metered(device, "two") as meter:
        evaluate(device, device.initial(0), rows().features)
        assert meter.cost(5)["circuits"] == device.engine.usage.circuits >= 10


def test_the_last_job_may_overdraw_the_estimate_of_seconds_only() -> None:
    request = Request((), 0.1, "k", "r", "l", 5, 500, 2.0)
    Budget(qpu_seconds=3.0).check(Usage(1, 5, 500, 2.5), request, overdraw=True)
    with pytest.raises(BudgetError, match="budget_qpu_seconds = 3"):
        Budget(qpu_seconds=3.0).check(Usage(1, 5, 500, 2.5), request)
    with pytest.raises(BudgetError, match="budget_jobs = 1"):
        Budget(jobs=1).check(Usage(1, 5, 500, 2.5), request, overdraw=True)
