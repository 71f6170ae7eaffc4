"""PennyLane devices: values, gradients, noise, shots, options, and every error by its message."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch

from core import (
    BackendError,
    Noise,
    QuantumSettings,
    TrainSettings,
    parse_device_options,
    parse_noise,
)
from quantum import TrainingData, build_classifier, train_local
from quantum.circuit import Circuit
from quantum.circuit.gates import Trainable, gates_of
from quantum.engines.exact.engine import ExactEngine
from quantum.engines.factory import build_engine
from quantum.engines.pennylane import PennylaneEngine, open_device
from tests.quantum.conftest import UNTAUGHT, qcnn, vqc

Blobs = Callable[..., TrainingData]
Z = np.diag([1.0, -1.0])
GATES_A_WIRE = 10  # of qcnn(2, 2, "su4"): RY(x), 3 turns, 3 couplings, 3 turns


def evaluated(engine: Any, angles: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expectations and the gradient of their sum."""
    leaf = torch.tensor(angles, dtype=engine.dtype, requires_grad=True)
    z = engine.expectations(leaf, engine.prepare(x))
    z.sum().backward()
    assert leaf.grad is not None
    return z.detach().numpy(), leaf.grad.numpy()


def drawn(ansatz: Circuit, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-np.pi / 2, np.pi / 2, (rows, ansatz.n_qubits))
    return rng.uniform(-np.pi, np.pi, ansatz.angles), x


def idle(noise: Noise, x: np.ndarray) -> np.ndarray:
    """<Z> of both qubits after RY(x) and nine gates at angle zero, all of them noisy."""
    engine = PennylaneEngine(qcnn(2, 2, "su4"), "default.mixed", noise=noise)
    return evaluated(engine, np.zeros(15), x)[0]


@pytest.mark.parametrize(
    ("name", "options", "gradient"),
    [
        ("lightning.qubit", {}, "adjoint"),
        ("lightning.qubit", {"c_dtype": "complex64", "batch_obs": True}, "adjoint"),
        ("default.mixed", {}, "backprop"),
        ("reference.qubit", {}, "parameter-shift"),
    ],
)
@pytest.mark.parametrize("ansatz", [qcnn(2, 1, "su4"), qcnn(3, 3, "paper"), vqc(3)], ids=str)
def test_exact_devices_agree_with_default_qubit(
    ansatz: Circuit, name: str, options: dict[str, Any], gradient: str
) -> None:
    """Also those that know no rows: PennyLane runs them one by one."""
    if name == "lightning.qubit":
        pytest.importorskip("pennylane_lightning")
    angles, x = drawn(ansatz, rows=3)
    twin = PennylaneEngine(ansatz, "default.qubit")
    engine = PennylaneEngine(ansatz, name, options)
    assert (twin.gradient, engine.gradient) == ("backprop", gradient)
    assert twin.shots == engine.shots == 0
    for ours, theirs in zip(evaluated(engine, angles, x), evaluated(twin, angles, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_options_reach_the_device() -> None:
    pytest.importorskip("pennylane_lightning")
    settings = QuantumSettings(
        qubits=2, backend="pennylane:lightning.qubit", device_options="c_dtype=complex64"
    )
    engine = build_engine(qcnn(2), settings)
    assert isinstance(engine, PennylaneEngine)
    assert engine._qnode.device.c_dtype is np.complex64


def test_depolarising_shrinks_z_after_every_gate() -> None:
    x = np.array([[0.0, 0.5], [1.2, -0.9]])
    z = idle(Noise(depolarizing=0.03), x)
    np.testing.assert_allclose(z, (1 - 4 * 0.03 / 3) ** GATES_A_WIRE * np.cos(x), atol=1e-12)


def test_readout_error_shrinks_z_once() -> None:
    x = np.array([[0.0, 0.5], [1.2, -0.9]])
    np.testing.assert_allclose(idle(Noise(readout=0.1), x), 0.8 * np.cos(x), atol=1e-12)
    both = idle(Noise(bit_flip=0.02, readout=0.1), x)
    np.testing.assert_allclose(both, 0.8 * 0.96**GATES_A_WIRE * np.cos(x), atol=1e-12)


def test_amplitude_damping_draws_to_the_ground_state() -> None:
    x = np.array([[3.0, 0.5], [1.2, -0.9]])
    kept = 0.95**GATES_A_WIRE
    z = idle(Noise(amplitude_damping=0.05), x)
    np.testing.assert_allclose(z, 1 - kept * (1 - np.cos(x)), atol=1e-12)


@pytest.mark.parametrize(
    ("noise", "shrink"),
    [
        (Noise(phase_damping=0.19), 0.9),  # sqrt(1 - p)
        (Noise(phase_flip=0.05), 0.9),  # 1 - 2 p
    ],
)
def test_dephasing_shrinks_coherence_only(noise: Noise, shrink: float) -> None:
    """RY(x), RZ(0), RY(t): the X component has lived through two channels before RY(t)."""
    x, t = np.array([[0.7, 0.2], [-1.1, 0.4]]), 0.4
    np.testing.assert_allclose(idle(noise, x), np.cos(x), atol=1e-12)
    angles = np.zeros(15)
    angles[1] = t  # RY of the first qubit
    z, _ = evaluated(PennylaneEngine(qcnn(2, 2), "default.mixed", noise=noise), angles, x)
    first = x[:, 0]
    wanted = np.cos(first) * np.cos(t) - shrink**2 * np.sin(first) * np.sin(t)
    np.testing.assert_allclose(z[:, 0], wanted, atol=1e-12)


def on(matrix: np.ndarray, wire: int, n: int) -> np.ndarray:
    """A one-qubit matrix on one of n qubits."""
    return reduce(np.kron, [matrix if i == wire else np.eye(2) for i in range(n)])


def kraus(noise: Noise) -> list[list[np.ndarray]]:
    """Textbook Kraus matrices of the gate channels, in their order."""
    x, y = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]])
    p, g, s = noise.depolarizing, noise.amplitude_damping, noise.phase_damping
    b, f = noise.bit_flip, noise.phase_flip
    return [
        [np.sqrt(1 - p) * np.eye(2), *(np.sqrt(p / 3) * pauli for pauli in (x, y, Z))],
        [np.diag([1, np.sqrt(1 - g)]), np.array([[0, np.sqrt(g)], [0, 0]])],
        [np.diag([1, np.sqrt(1 - s)]), np.diag([0, np.sqrt(s)])],
        [np.sqrt(1 - b) * np.eye(2), np.sqrt(b) * x],
        [np.sqrt(1 - f) * np.eye(2), np.sqrt(f) * Z],
    ]


@pytest.mark.parametrize("ansatz", [qcnn(3, 1, "su4"), qcnn(3, 3, "paper"), vqc(3)], ids=str)
def test_noise_agrees_with_density_matrices_by_hand(ansatz: Circuit) -> None:
    noise, n = Noise(0.02, 0.03, 0.04, 0.01, 0.05, 0.06), ansatz.n_qubits
    angles, x = drawn(ansatz, rows=1, seed=5)
    rho = np.zeros((2**n, 2**n), complex)
    rho[0, 0] = 1
    for gate in gates_of(ansatz.blocks):
        if isinstance(gate.angle, Trainable):
            given_angles = [angles[gate.angle.index]]
        elif gate.angle is None or isinstance(gate.angle, float):
            given_angles = [] if gate.angle is None else [gate.angle]
        else:
            given_angles = [gate.angle.value(x[0])]
        unitary = getattr(qml, gate.name)(*given_angles, wires=gate.wires).matrix(range(n))
        rho = unitary @ rho @ unitary.conj().T
        for wire in gate.wires:
            for channel in kraus(noise):
                full = [on(k, wire, n) for k in channel]
                rho = sum(k @ rho @ k.conj().T for k in full)
    by_hand = [0.88 * np.trace(on(Z, w, n) @ rho).real for w in ansatz.readout_wires]
    z, _ = evaluated(PennylaneEngine(ansatz, "default.mixed", noise=noise), angles, x)
    np.testing.assert_allclose(z[0], by_hand, atol=1e-6, rtol=0)


def test_noisy_gradient_is_the_parameter_shift() -> None:
    ansatz = qcnn(2, 1, "paper")
    angles, x = drawn(ansatz, rows=2)
    engine = PennylaneEngine(ansatz, "default.mixed", noise=parse_noise("depolarizing=0.02"))
    _, gradient = evaluated(engine, angles, x)
    shifts = np.pi / 2 * np.eye(ansatz.angles)
    shifted = [
        [evaluated(engine, angles + sign * step, x)[0].sum() for sign in (1, -1)] for step in shifts
    ]
    np.testing.assert_allclose(gradient, [(up - down) / 2 for up, down in shifted], atol=1e-6)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit", "default.mixed"])
def test_shots_scatter_as_their_number_says(name: str) -> None:
    if name == "lightning.qubit":
        pytest.importorskip("pennylane_lightning")
    ansatz, shots, rows = qcnn(2, 2, "paper"), 4000, 4
    angles, x = drawn(ansatz, rows)
    exact_z, exact_gradient = evaluated(ExactEngine(ansatz, "double"), angles, x)
    engine = PennylaneEngine(ansatz, name, shots=shots, seed=3)
    assert (engine.shots, engine.gradient) == (shots, "parameter-shift")
    z, gradient = evaluated(engine, angles, x)
    deviation = np.abs(z - exact_z)
    assert (deviation <= 5 * np.sqrt((1 - exact_z**2) / shots) + 1e-6).all()
    assert deviation.max() > 1e-4
    sigma = np.sqrt(rows * 2 / (2 * shots))  # (z+ - z-) / 2 of each row and read-out
    assert (np.abs(gradient - exact_gradient) <= 5 * sigma).all()
    again = evaluated(PennylaneEngine(ansatz, name, shots=shots, seed=3), angles, x)
    other = evaluated(PennylaneEngine(ansatz, name, shots=shots, seed=4), angles, x)
    np.testing.assert_array_equal(again[0], z)
    np.testing.assert_array_equal(again[1], gradient)
    assert not np.array_equal(other[0], z)


def test_the_estimated_error_is_that_of_all_channels_and_read_outs() -> None:
    """A probability for each gate and wire, and one for each qubit that is read."""
    ansatz, device = qcnn(2, 2, "su4"), "default.mixed"
    assert PennylaneEngine(ansatz, device).error == 0
    noise = Noise(depolarizing=0.01, bit_flip=0.02, readout=0.05)
    kept = (0.99 * 0.98) ** (2 * GATES_A_WIRE) * 0.95 ** len(ansatz.readout_wires)
    assert PennylaneEngine(ansatz, device, noise=noise).error == pytest.approx(1 - kept)


def test_shots_and_noise_together() -> None:
    x, noise = np.array([[0.3, -1.0]]), Noise(depolarizing=0.01, readout=0.05)
    engine = PennylaneEngine(qcnn(2, 2), "default.mixed", noise=noise, shots=5000, seed=1)
    wanted = 0.9 * (1 - 0.04 / 3) ** GATES_A_WIRE * np.cos(x)
    z, _ = evaluated(engine, np.zeros(15), x)
    assert (np.abs(z - wanted) <= 5 * np.sqrt((1 - wanted**2) / 5000)).all()


def test_parameter_shift_runs_the_circuits_that_we_count() -> None:
    ansatz = qcnn(2, 2, "paper")
    angles, x = drawn(ansatz, rows=3)
    engine = PennylaneEngine(ansatz, "reference.qubit", shots=10)
    with qml.Tracker(engine._qnode.device) as tracker:
        evaluated(engine, angles, x)
    assert tracker.totals["executions"] == 3 * (1 + 2 * ansatz.angles)


@pytest.mark.filterwarnings("ignore:Since backends now support:DeprecationWarning")
def test_a_device_that_only_samples_says_how_many_shots() -> None:
    pytest.importorskip("pennylane_qiskit")
    ansatz = qcnn(2, 2, "paper")
    angles, x = drawn(ansatz, rows=1)
    sampler = PennylaneEngine(ansatz, "qiskit.aer")
    assert (sampler.shots, sampler.gradient) == (1024, "parameter-shift")
    exact, _ = evaluated(ExactEngine(ansatz, "double"), angles, x)
    with torch.no_grad():
        z = sampler.expectations(torch.tensor(angles), sampler.prepare(x)).numpy()
        assert (np.abs(z - exact) <= 5 * np.sqrt((1 - exact**2) / 1024)).all()
        state = PennylaneEngine(ansatz, "qiskit.aer", parse_device_options("method=statevector"))
        assert state.shots == 0
        z = state.expectations(torch.tensor(angles), state.prepare(x)).numpy()
    np.testing.assert_allclose(z, exact, atol=1e-10)


@pytest.mark.parametrize("optimizer", ["adam", "cobyla"])
@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit", "default.mixed"])
def test_every_device_trains_as_the_exact_engine(blobs: Blobs, name: str, optimizer: Any) -> None:
    if name == "lightning.qubit":
        pytest.importorskip("pennylane_lightning")
    data, train = blobs(2, 2, 8), TrainSettings(optimizer=optimizer)
    results = []
    for backend in ("exact", f"pennylane:{name}"):
        settings = QuantumSettings(qubits=2, block="paper", backend=backend)
        model = build_classifier(settings, 2)
        results.append(train_local(model, model.initial(0), data, train, UNTAUGHT, 3))
    ours, theirs = results
    assert ours.circuits == theirs.circuits
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-5)
    assert len(set(ours.losses)) > 1


def test_training_under_noise_lowers_the_loss(blobs: Blobs) -> None:
    settings = QuantumSettings(
        qubits=2, block="paper", backend="pennylane:default.mixed", noise="depolarizing=0.01"
    )
    model = build_classifier(settings, 2)
    train = TrainSettings(learning_rate=0.2)
    result = train_local(model, model.initial(0), blobs(2, 2, 8), train, UNTAUGHT, 10)
    assert result.losses[-1] < result.losses[0] - 0.05


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "lightnin.qubit",
            "",
            r"installed \(did you mean 'pennylane:lightning\.qubit'\?\); accepted: default\.cliff",
        ),
        ("default.quibt", "", r"\(did you mean 'pennylane:default\.qubit'\?\)"),
        ("lightning.gpu", "", r"pip install 'pennylane-lightning\[gpu\]'"),
        ("cirq.simulator", "", "pip install 'PennyLane-Cirq'"),
        ("braket.local.qubit", "", "pip install 'amazon-braket-pennylane-plugin'"),
        ("ionq.simulator", "", "pip install 'PennyLane-IonQ'"),
        ("xyz", "", "change quantum.backend or install the device's plugin"),
        ("default.qubit", "c_dtype=complex64", "c_dtype, not an option of 'pennylane:default.qub"),
        ("default.mixed", "a=1,b=2", "sets a, b, not an option of .*; accepted: readout_prob; ch"),
        ("default.mixed", "readout_prob=2", "'pennylane:default.mixed' cannot be used"),
        ("default.qutrit", "", r"cannot be used \(.*accepted: a qubit device"),
    ],
)
def test_device_that_cannot_be_had_is_one_clear_line(name: str, options: str, message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        PennylaneEngine(qcnn(2), name, parse_device_options(options))
    assert "\n" not in str(caught.value)


def test_missing_plugin_is_named_only_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qml, "plugin_devices", {"default.qubit": None})
    with pytest.raises(BackendError, match="pip install 'pennylane-qiskit'"):
        open_device("qiskit.aer", 2)
    monkeypatch.setattr(qml, "plugin_devices", {"qiskit.aer": None, "default.qubit": None})
    with pytest.raises(BackendError, match=r"did you mean 'pennylane:qiskit\.aer'\?"):
        open_device("qiskit.air", 2)


@pytest.mark.parametrize("name", ["default.qubit", "qiskit.aer"])
@pytest.mark.parametrize("key", ["wires", "shots", "seed", "seed_simulator"])
def test_what_the_run_decides_is_never_an_option(name: str, key: str) -> None:
    if name == "qiskit.aer":
        pytest.importorskip("pennylane_qiskit")
    with pytest.raises(BackendError, match=f"sets {key}, not an option of"):
        PennylaneEngine(qcnn(2), name, {key: 3})


@pytest.mark.parametrize("name", ["qiskit.remote", "qiskit.basicaer"])
def test_device_that_fails_at_opening_is_one_clear_line(name: str) -> None:
    pytest.importorskip("pennylane_qiskit")
    with pytest.raises(
        BackendError, match=rf"'pennylane:{name}' cannot be used \(.*change quantum"
    ):
        PennylaneEngine(qcnn(2), name)


def test_device_that_fails_at_its_first_circuit_is_one_clear_line() -> None:
    pytest.importorskip("pennylane_lightning")
    engine = PennylaneEngine(qcnn(2), "lightning.qubit", parse_device_options("c_dtype=float32"))
    with pytest.raises(BackendError, match=r"lightning.qubit' cannot be used \(Unsupported") as e:
        engine.expectations(torch.zeros(qcnn(2).angles), engine.prepare(np.zeros((1, 2))))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit", "qiskit.aer"])
def test_noise_needs_a_device_with_channels(name: str) -> None:
    if name != "default.qubit":
        pytest.importorskip({"l": "pennylane_lightning", "q": "pennylane_qiskit"}[name[0]])
    settings = QuantumSettings(qubits=2, backend=f"pennylane:{name}", noise="readout=0.02")
    message = (
        f"quantum.noise = 'readout=0.02' with quantum.backend = 'pennylane:{name}', which takes no "
        r"noise channels; accepted: a device of mixed states, for instance 'pennylane:default\.mi"
    )
    with pytest.raises(BackendError, match=message):
        build_engine(qcnn(2), settings)
