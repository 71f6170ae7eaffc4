"""Circuits of users and the further ones that ship, on every engine, against PennyLane."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import pennylane.numpy as pnp
import pytest
import torch

from core import (
    DistillSettings,
    HardwareSettings,
    QuantumSettings,
    SettingsError,
    TrainSettings,
    registry,
)
from quantum import Classifier, Host, TrainingData, build_classifier, train_local
from quantum.ansatz.product import Product
from quantum.ansatz.qcnn import QCNN
from quantum.ansatz.strongly_entangling import StronglyEntangling
from quantum.ansatz.ttn import TreeTensorNetwork
from quantum.circuit import Circuit, trace_ansatz
from quantum.circuit.trace import readout_count
from quantum.costs import circuits_per_step
from quantum.engines.exact import ExactEngine, GateByGateEngine, open_exact, reference_expectations
from quantum.engines.exact.fusion import can_fuse
from quantum.engines.pauli import PauliEngine
from quantum.engines.pennylane import PennylaneEngine
from quantum.training.problem import Problem
from tests.quantum.odd_circuits import (
    ODD,
    FeatureGates,
    Iqp,
    OwnGates,
    Reupload,
    SharedWeights,
    Toffoli,
)

SHIPPED = (StronglyEntangling(2, 2), TreeTensorNetwork(), Product(2, 2), TreeTensorNetwork("paper"))
N = 3
ALL = (*(kind() for kind in ODD), *SHIPPED)
CASES = [(ansatz, classes) for ansatz in ALL for classes in (2, 3)]
IDS = [f"{type(ansatz).__name__}-{classes}" for ansatz, classes in CASES]


def measured(ansatz: Any, classes: int) -> list[Any]:
    """Return an ansatz's read-outs as PennyLane's observables, from the protocol's words."""
    count, method = readout_count(classes), getattr(ansatz, "observables", None)
    given = method(list(range(N)), classes) if method else list(range(N))[-count:]
    found = []
    for one in given:
        if isinstance(one, int):
            found.append(qml.Z(one))
        elif isinstance(one, dict):
            found.append(qml.dot(list(one.values()), [qml.Z(wire) for wire in one]))
        else:
            found.append(one)
    return found


def by_pennylane(
    ansatz: Any, classes: int, weights: np.ndarray, x: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Expectations (rows, R) and the gradient (P,) to the user's own function, by backprop."""
    observables = measured(ansatz, classes)
    more = (classes,) if "classes" in type(ansatz).circuit.__code__.co_varnames[:5] else ()

    def run(w: Any, row: Any) -> list[Any]:
        ansatz.circuit(row, w, list(range(N)), *more)
        return [qml.expval(one) for one in observables]

    device = qml.device("default.qubit", wires=N)
    node = qml.QNode(run, device, interface="autograd", diff_method="backprop")

    rows = [pnp.array(row, requires_grad=False) for row in x]

    def total(w: Any) -> Any:
        found = [node(w, row) for row in rows]
        return sum(slope[i, r] * z for i, one in enumerate(found) for r, z in enumerate(one))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autograd casts complex numbers
        gradient = qml.grad(total)(pnp.array(weights, requires_grad=True))
    z = np.array([[float(v) for v in node(weights, row)] for row in rows])
    return z, np.asarray(gradient).ravel()


def by_engine(
    engine: Any, circuit: Circuit, weights: np.ndarray, x: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    leaf = torch.tensor(weights.ravel(), dtype=engine.dtype, requires_grad=True)
    z = engine.expectations(circuit.slot_values(leaf), engine.prepare(x))
    (gradient,) = torch.autograd.grad((z * torch.from_numpy(slope).to(z)).sum(), leaf)
    return z.detach().double().numpy(), gradient.double().numpy()


@pytest.mark.parametrize(("ansatz", "classes"), CASES, ids=IDS)
def test_every_engine_gives_pennylanes_values_and_gradients(ansatz: Any, classes: int) -> None:
    circuit = trace_ansatz(ansatz, N, classes)
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=circuit.shape), rng.normal(size=(3, N))
    slope = rng.normal(size=(3, len(circuit.readouts)))
    z, gradient = by_pennylane(ansatz, classes, weights, x, slope)
    chosen, general = open_exact(circuit, "double"), GateByGateEngine(circuit, "double")
    for engine in (chosen, general, PennylaneEngine(circuit, "default.qubit")):
        found, slopes = by_engine(engine, circuit, weights, x, slope)
        np.testing.assert_allclose(found, z, atol=1e-10, err_msg=str(engine))
        np.testing.assert_allclose(slopes, gradient, atol=1e-8, err_msg=str(engine))
    single, rough = by_engine(open_exact(circuit), circuit, weights, x, slope)
    np.testing.assert_allclose(single, z, atol=1e-4)
    np.testing.assert_allclose(rough, gradient, atol=1e-3)
    slots = circuit.slot_values(torch.tensor(weights.ravel()))
    plain = reference_expectations(circuit, slots, x)
    np.testing.assert_allclose(plain.numpy(), z, atol=1e-10)


@pytest.mark.parametrize("readout", ["linear", "linear-zz"])
def test_a_linear_head_sees_all_qubits_on_every_engine(readout: Any) -> None:
    """Five classes on three qubits, of a circuit that pooled two of them away."""
    circuit = trace_ansatz(QCNN(readouts=1), N, 5, readout=readout)
    rng = np.random.default_rng(1)
    weights, x = rng.normal(size=circuit.angles), rng.normal(size=(3, N))
    wires = range(N)
    words = [qml.Z(wire) for wire in wires]
    if readout == "linear-zz":
        words += [qml.Z(a) @ qml.Z(b) for a, b in ((0, 1), (0, 2), (1, 2))]

    def measured(row: np.ndarray) -> Any:
        QCNN(readouts=1).circuit(row, weights, wires)
        return [qml.expval(word) for word in words]

    node = qml.QNode(measured, qml.device("default.qubit", wires=N))
    z = np.array([node(row) for row in x])
    slots = torch.from_numpy(weights)
    for engine in (
        open_exact(circuit, "double"),
        GateByGateEngine(circuit, "double"),
        ExactEngine(circuit, "double"),
        PennylaneEngine(circuit, "default.qubit"),
    ):
        found = engine.expectations(slots.to(engine.dtype), engine.prepare(x))
        np.testing.assert_allclose(found.numpy(), z, atol=1e-10, err_msg=str(engine))


def test_the_choice_of_engine() -> None:
    """Small with features at the start: Pauli coefficients; RY(x) again: fused; else by gates."""
    fused = [kind for kind in ODD if can_fuse(trace_ansatz(kind(), N))]
    assert fused == [SharedWeights, Iqp, Toffoli, OwnGates]
    assert all(can_fuse(trace_ansatz(ansatz, N)) for ansatz in SHIPPED)
    assert isinstance(open_exact(trace_ansatz(Reupload(), N)), GateByGateEngine)
    assert isinstance(open_exact(trace_ansatz(Iqp(), N)), PauliEngine)
    assert isinstance(open_exact(trace_ansatz(QCNN(), 7)), ExactEngine)


def test_slots_are_weights_only_where_each_is_one_angle() -> None:
    assert trace_ansatz(StronglyEntangling(), N).formulas is None
    shared = trace_ansatz(SharedWeights(), N)
    assert (shared.angles, shared.slots, shared.shifts, shared.mixed) == (2, 7, 7, False)
    found = shared.slot_values(np.array([0.5, -3.0]))
    np.testing.assert_allclose(sorted(found), [-3, -3, -3, -1.5, 0.25, 0.25, 0.25])
    upload = trace_ansatz(Reupload(), N)
    assert (upload.angles, upload.shifts, upload.mixed) == (18, 9, True)
    assert trace_ansatz(FeatureGates(), N).mixed


@pytest.mark.parametrize("kind", [SharedWeights, Iqp, Toffoli])
def test_shifts_of_slots_give_the_gradient_to_weights(kind: type) -> None:
    circuit = trace_ansatz(kind(), N)
    classifier = Classifier(circuit, open_exact(circuit, "double"), 2)
    rng = np.random.default_rng(1)
    start = {**classifier.initial(0), "angles": rng.normal(size=circuit.angles)}
    data = TrainingData(rng.normal(size=(4, N)), np.array([0, 1, 1, 0]))
    train = TrainSettings()
    problem = Problem(classifier, start, data, train, DistillSettings(weight=0), seed=0)
    exact, shifted = (
        method(problem.anchor, 0)[1].numpy() for method in (problem.by_autograd, problem.by_shifts)
    )
    np.testing.assert_allclose(shifted, exact, atol=1e-12)
    assert circuits_per_step(train, 4, circuit.shifts) == 4 * (1 + 2 * circuit.slots)


def test_shifts_of_mixed_angles_are_refused() -> None:
    circuit = trace_ansatz(Reupload(), N)
    classifier = Classifier(circuit, open_exact(circuit), 2)
    data = TrainingData(np.zeros((2, N)), np.array([0, 1]))
    train, distill = TrainSettings(optimizer="parameter-shift"), DistillSettings(weight=0)
    with pytest.raises(SettingsError, match=r"parameter-shift.*depends on features and weights"):
        train_local(classifier, classifier.initial(0), data, train, distill, 1)


# --- Through the settings ---


@pytest.fixture
def reupload() -> str:
    registry.register("ansatz", "odd-reupload", Reupload())
    return "odd-reupload"


def trained(
    model: str, backend: str, optimizer: str, store: Path, shots: int = 4000
) -> list[float]:
    host = Host(HardwareSettings(shots=shots, layout_trials=1), seed=3, store=store, run="own")
    settings = QuantumSettings(model=model, qubits=N, backend=backend, precision="double")
    classifier = build_classifier(settings, 2, host)
    rng = np.random.default_rng(0)
    data = TrainingData(rng.uniform(-1, 1, (6, N)), np.array([0, 1] * 3))
    train = TrainSettings(optimizer=optimizer)  # type: ignore[arg-type]
    start, distill = classifier.initial(1), DistillSettings(weight=0)
    return list(train_local(classifier, start, data, train, distill, 3).losses)


def test_an_own_circuit_trains_on_every_kind_of_backend(reupload: str, device_store: Path) -> None:
    exact = trained(reupload, "exact", "adam", device_store)
    assert exact[-1] < exact[0]
    for device, shots, off in (
        ("default.qubit", 0, 1e-9),
        ("default.qubit", 4000, 0.1),
        ("lightning.qubit", 0, 1e-6),
    ):
        twin = trained(reupload, f"pennylane:{device}", "adam", device_store, shots)
        np.testing.assert_allclose(twin, exact, atol=off)
    near = trained(reupload, "exact", "spsa", device_store)
    np.testing.assert_allclose(trained(reupload, "aer", "spsa", device_store), near, atol=0.2)
    assert len(trained(reupload, "fake:manila", "cobyla", device_store)) == 3


@pytest.mark.parametrize("kind", [Iqp, Toffoli, FeatureGates])
def test_devices_measure_own_observables(kind: type, device_store: Path) -> None:
    name = f"odd-{kind.__name__.lower()}"
    registry.register("ansatz", name, kind())
    settings = QuantumSettings(model=name, qubits=N)
    host = Host(HardwareSettings(shots=20_000), seed=3, store=device_store, run="own")
    on_aer = settings.model_copy(update={"backend": "aer"})
    exact, aer = (build_classifier(chosen, 3, host) for chosen in (settings, on_aer))
    weights, x = np.linspace(-1, 2, exact.angles), np.array([[0.3, -0.9, 1.2]])
    z = [
        model.expectations(torch.tensor(weights, dtype=model.engine.dtype), model.engine.prepare(x))
        for model in (exact, aer)
    ]
    np.testing.assert_allclose(z[1].numpy(), z[0].numpy(), atol=0.08)


# --- The control without entanglement ---


def test_product_is_a_sum_of_functions_of_one_feature_each() -> None:
    """Closed form at zero weights: the mean of cos(u x_i) for u uploads; and no cross terms."""
    circuit = trace_ansatz(Product(reps=3, uploads=2), N)
    engine, x = open_exact(circuit, "double"), np.random.default_rng(0).uniform(-1.5, 1.5, (4, N))
    assert circuit.two_qubit_gates == 0
    z = engine.expectations(torch.zeros(circuit.slots, dtype=torch.float64), engine.prepare(x))
    np.testing.assert_allclose(z.numpy()[:, 0], np.cos(2 * x).mean(axis=1), atol=1e-12)
    weights = torch.tensor(np.random.default_rng(1).normal(size=circuit.slots))
    corners = np.array([[a, b, 0.3] for a in (0.0, 1.0) for b in (0.0, 1.0)])
    (both, first), (second, none) = (
        engine.expectations(weights, engine.prepare(corners)).numpy().reshape(2, 2)
    )
    assert both - first - second + none == pytest.approx(0, abs=1e-12)


def test_product_can_have_as_many_weights_as_the_qcnn() -> None:
    for reps, readout in ((5, "linear"), (7, "per-class")):
        qcnn = build_classifier(QuantumSettings(readout=readout), 2)  # type: ignore[arg-type]
        control = build_classifier(QuantumSettings(model="product", reps=reps), 2)
        assert control.angles == qcnn.angles == 12 * reps
    with pytest.raises(SettingsError, match=r"uploads = 4 with quantum.reps = 3; accepted: at"):
        build_classifier(QuantumSettings(model="product", uploads=4), 2)


def test_strongly_entangling_is_pennylanes_template() -> None:
    circuit = trace_ansatz(StronglyEntangling(reps=3), N)
    weights, x = np.random.default_rng(0).normal(size=circuit.shape), np.array([0.2, -0.4, 1.1])

    def run() -> Any:
        qml.AngleEmbedding(x, wires=range(N), rotation="Y")
        qml.StronglyEntanglingLayers(weights, wires=range(N))
        return qml.expval(qml.Z(N - 1))

    node = qml.QNode(run, qml.device("default.qubit", wires=N))
    z, _ = by_engine(open_exact(circuit, "double"), circuit, weights, x[None], np.ones((1, 1)))
    assert z[0, 0] == pytest.approx(float(node()), abs=1e-12)


@pytest.mark.parametrize(
    ("qubits", "classes", "pairs", "read"),
    [
        (4, 2, [(0, 1), (2, 3), (1, 3)], (3,)),
        (5, 2, [(0, 1), (2, 3), (1, 3), (3, 4)], (4,)),
        (4, 3, [(0, 1)], (1, 2, 3)),
        (3, 3, [(0, 1)], (0, 1, 2)),
    ],
)
def test_trees_by_hand(
    qubits: int, classes: int, pairs: list[tuple[int, int]], read: tuple[int, ...]
) -> None:
    circuit = trace_ansatz(TreeTensorNetwork(), qubits, classes)
    assert [block.wires for block in circuit.layers] == pairs
    assert circuit.readout_wires == read
    assert circuit.shape == (len(pairs), 15)
    assert circuit.two_qubit_gates == 3 * len(pairs)
