from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bench import floor, published_circuit, simulators
from bench.engine import (
    COMPILED,
    DEFAULT,
    JAX,
    OTHERS,
    OURS,
    PYQTORCH,
    QANDLE,
    SLOW,
    STATES,
    TENSORCIRCUIT,
    TORCHQUANTUM,
    Bounds,
    Cell,
    build,
    deviation,
    header,
    main,
    measure,
    milliseconds,
    our_step,
    row,
)
from bench.simulators import NotInstalledError, elementary, random_problem
from core import BackendError
from quantum.circuit import Gate
from quantum.circuit.gates import Trainable
from quantum.engines.exact.engine import ExactEngine
from quantum.engines.exact.reference import apply_gate, gate_matrices, reference_expectations
from tests.quantum.conftest import qcnn

MODULES = {
    JAX: "jax",
    TENSORCIRCUIT: "jax",
    TORCHQUANTUM: "torchquantum",
    PYQTORCH: "pyqtorch",
    QANDLE: "qandle",
}


def test_a_row_gives_the_others_as_ratios_to_ours() -> None:
    others: dict[str, Cell] = {
        DEFAULT: (50.0, None),
        JAX: (4.0, 2.5),
        TENSORCIRCUIT: ("not tried", None),
        QANDLE: ("missing", None),
    }
    line = "| 4 | 32 | 2 | 50 (25.0x) | 4 (2.0x) | 2.5 | not tried | - | missing | 0.50 | 4.0 |"
    assert row(4, 32, 2.0, others, 0.5) == line
    assert header(tuple(others)).splitlines()[0].count("|") == line.count("|")


def test_a_step_takes_time() -> None:
    assert milliseconds(our_step(random_problem(qcnn(2), 4)), limit=0.05) > 0


@pytest.mark.parametrize("name", OTHERS)
def test_every_simulator_computes_the_loss_and_the_gradient(name: str) -> None:
    """Those that are installed here; the others when the benchmark runs."""
    problem = random_problem(qcnn(2), 3)
    theta = torch.tensor(problem.theta, dtype=torch.float64, requires_grad=True)
    z = reference_expectations(problem.ansatz, theta[:-2], problem.features)[:, 0]
    labels = torch.as_tensor(problem.labels, dtype=torch.float64)
    logits = theta[-2] * z + theta[-1]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    expected = loss.detach(), torch.autograd.grad(loss, theta)[0]
    try:
        step, seconds = build(name, problem, "cpu")
    except (NotInstalledError, BackendError) as error:
        pytest.skip(str(error))
    assert (seconds is not None) == (name in COMPILED)
    assert deviation(step, lambda: expected) < 1e-5


def test_a_wrong_simulator_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(qcnn(2), 3)
    loss, gradient = our_step(problem)()

    def wrong(problem: simulators.Problem, device: str) -> simulators.Step:
        return lambda: (loss, gradient + 2e-4)

    monkeypatch.setattr(simulators, "qandle_step", wrong)
    cell = measure(QANDLE, problem, our_step(problem), Bounds(1.0, 1.0))
    assert cell == ("differs by 0.0002", None)
    assert main(["--qubits", "2", "--rows", "3", "--limit", "0.001", "--only", QANDLE]) == 1


@pytest.mark.parametrize("name", ["IsingXX", "IsingYY", "IsingZZ"])
def test_ising_rotations_in_elementary_gates(name: str) -> None:
    ising = Gate(name, (1, 0), Trainable(0))
    slots, x = torch.tensor([0.7], dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)

    def columns(gates: list[Gate]) -> torch.Tensor:
        states = torch.eye(4, dtype=torch.complex128)
        for gate in gates:
            states = apply_gate(states, gate, gate_matrices(gate, slots, x), 2)
        return states

    written = list(elementary([ising]))
    assert {gate.name for gate in written} <= {"CNOT", "RX", "RZ"}
    torch.testing.assert_close(columns(written), columns([ising]))


def test_a_gpu_is_idle_when_a_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr("bench.floor.time.perf_counter", clock)
    milliseconds(lambda: events.append("step"), limit=1e-4, device="cuda")
    assert events == ["wait", "clock", "step", "wait", "clock"] * 2
    events.clear()
    milliseconds(lambda: events.append("step"), limit=1e-4)
    assert events == ["clock", "step", "clock"] * 2


@pytest.mark.parametrize("name", [OURS, STATES, DEFAULT])
def test_only_our_step_goes_to_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU ours refuses; PennyLane's columns are measured on the CPU all the same."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = random_problem(qcnn(2), 2)
    if name == DEFAULT:
        our_step(problem, name, "cuda")()
    else:
        with pytest.raises(BackendError, match="torch finds no CUDA device"):
            our_step(problem, name, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_table_is_printed_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--qubits", "2", "--rows", "2"]
    assert main([*sizes, "--limit", "0.001", "--device", "cuda"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| 2 | 2 | ")


def test_a_slow_simulator_is_not_tried_with_more_rows() -> None:
    bounds, problem = Bounds(limit=0.0001, compile_limit=1.0), random_problem(qcnn(2), 2)
    took, _ = measure(DEFAULT, problem, our_step(problem), bounds)
    assert isinstance(took, float)
    assert measure(DEFAULT, problem, our_step(problem), bounds) == (SLOW, None)


@pytest.mark.parametrize(("name", "qubits", "rows"), [(DEFAULT, 16, 2048), (QANDLE, 12, 32)])
def test_what_would_not_fit_is_not_tried(name: str, qubits: int, rows: int) -> None:
    problem = random_problem(qcnn(qubits), rows)
    reference = our_step(random_problem(qcnn(2), 2))
    assert measure(name, problem, reference, Bounds(1.0, 1.0)) == ("too big", None)


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_simulator_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES[name], None)  # importing it fails
    problem, bounds = random_problem(qcnn(2), 3), Bounds(1.0, 1.0)
    with pytest.raises(NotInstalledError, match="not installed"):
        build(name, problem, "cpu")
    assert measure(name, problem, our_step(problem), bounds) == ("not installed", None)
    assert bounds.skip == {name: "not installed"}


def test_the_table_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in MODULES.values():
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["--qubits", "2", "--rows", "2", "4", "--limit", "0.001"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines] == [16] * 4
    assert lines[-1].startswith("| 2 | 4 | ")
    missing = "not installed | - | not installed | - | not installed | not installed"
    assert f"| {missing} | not installed |" in lines[-1]


def test_floor_counts_twelve_qubits_by_hand() -> None:
    """Two cells of 6 qubits, two groups of 4, half a matrix of 6, 64 rows: one chunk."""
    schedule = ExactEngine(qcnn(12)).schedule_for(64)
    assert floor.products(schedule, 64, 1) == {
        **{(128, 64, 64): 4},
        **{(32, 32, 64 * 2**8): 4, (32, 64 * 2**8, 32): 2},
        **{(64, 128, 64 * 2**6): 1, (64, 64 * 2**6, 128): 1, (128, 64, 64 * 2**6): 1},
    }
    assert floor.state_bytes(schedule, 64) == 15 * 8 * 64 * 2**12


def test_floor_of_an_observable_is_reading_the_rows_twice() -> None:
    engine = ExactEngine(qcnn(4))
    engine.schedules = tuple(s for s in engine.schedules if s.heisenberg)
    (schedule,) = engine.schedules
    assert floor.products(schedule, 10, 1) == {(16, 16, 10): 1, (16, 10, 16): 1}
    assert floor.state_bytes(schedule, 10) == 2 * engine.prepare(np.zeros((10, 4))).values.nbytes
    assert floor.floor_seconds(schedule, 10, 1) > 0


def test_published_circuit_without_the_library(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_machine_learning.neural_networks", None)
    assert published_circuit.main(["--rows", "3", "--gradient-rows", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| objective | 3 | ")
    assert lines[3].endswith("| not installed | | |")


def test_published_circuit_agrees_with_qiskit() -> None:
    """The circuit handed to EstimatorQNN, by Qiskit's own state vector."""
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    library = pytest.importorskip("qiskit.circuit.library")
    ansatz = published_circuit.z_feature_qcnn(3)
    rng = np.random.default_rng(0)
    x, angles = rng.uniform(0, 1, (1, 3)), rng.uniform(-3, 3, ansatz.angles)
    features = library.z_feature_map(3, reps=2)
    circuit, weights = published_circuit.trainable_part(ansatz)
    bound = features.compose(circuit).assign_parameters(
        dict(zip(features.parameters, x[0], strict=True)) | dict(zip(weights, angles, strict=True))
    )
    z = quantum_info.SparsePauliOp.from_sparse_list([("Z", [ansatz.readout_wires[0]], 1.0)], 3)
    expected = quantum_info.Statevector(bound).expectation_value(z).real
    values, _ = published_circuit.ours(ansatz, x, np.ones(1), angles)
    assert values()[0] == pytest.approx(expected, abs=1e-5)


def test_gradient_of_the_published_objective_by_differences() -> None:
    ansatz = published_circuit.z_feature_qcnn(3)
    rng = np.random.default_rng(1)
    x, y, angles = (
        rng.uniform(0, 1, (2, 3)),
        np.array([1.0, -1.0]),
        rng.uniform(-3, 3, ansatz.angles),
    )

    def loss(theta: np.ndarray) -> float:
        values, _ = published_circuit.ours(ansatz, x, y, theta)
        return float(np.mean((values().astype(float) - y) ** 2))

    gradient = published_circuit.ours(ansatz, x, y, angles)[1]()
    steps = 1e-2 * np.eye(ansatz.angles)
    slopes = [(loss(angles + step) - loss(angles - step)) / 2e-2 for step in steps]
    np.testing.assert_allclose(gradient, slopes, atol=1e-3)
