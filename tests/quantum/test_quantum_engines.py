"""Engines against closed forms, against each other, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import BackendError, QuantumSettings
from quantum.ansatz.circuits import QCNN, VQC
from quantum.ansatz.gates import gates_of
from quantum.engines.base import Engine
from quantum.engines.exact.engine import ExactEngine, pick_device
from quantum.engines.exact.fusion import fuse
from quantum.engines.factory import build_engine
from quantum.engines.pennylane import PennylaneEngine

PLANS = ("heisenberg", "state-vector")
ANSAETZE = [
    *(QCNN(n, r, b) for n in range(2, 11) for r in (1, 3) if r <= n for b in ("su4", "paper")),
    *(VQC(n, r, f) for n in range(2, 8) for r in (1, 3) if r <= n for f in (1, 2)),
    *(VQC(n, r, f, 2) for n, r, f in ((8, 3, 1), (9, 1, 2), (10, 3, 1))),
    QCNN(6, 6),
    VQC(5, 5, 1, 1),
]


def expect(engine: Engine, angles: np.ndarray, x: np.ndarray) -> tuple[Any, Any]:
    """Expectations and the gradient of a nonlinear scalar of them."""
    leaf = torch.tensor(angles, dtype=engine.dtype, requires_grad=True)
    z = engine.expectations(leaf, engine.prepare(x))
    weights = torch.linspace(-1.0, 1.0, z.numel(), dtype=z.dtype).reshape(z.shape)
    (z.square() * weights + z).mean().backward()
    assert leaf.grad is not None
    return z.detach().double().numpy(), leaf.grad.double().numpy()


def draw(ansatz: QCNN | VQC, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-np.pi / 2, np.pi / 2, (rows, ansatz.n_qubits))
    return rng.uniform(-np.pi, np.pi, ansatz.angles), x


@pytest.mark.parametrize("plan", PLANS)
def test_angle_encoding_reads_cosines(plan: Any) -> None:
    """su4 at zero angles is the identity: as many read-outs as qubits give cos x_i."""
    ansatz = QCNN(3, 3, "su4")
    x = np.array([[0.0, 0.5, -1.2], [1.5, -0.1, 0.7]])
    engine = ExactEngine(ansatz, "double", plan=plan)
    z, _ = expect(engine, np.zeros(ansatz.angles), x)
    np.testing.assert_allclose(z, np.cos(x), atol=1e-14)


@pytest.mark.parametrize("plan", PLANS)
def test_one_rotation_shifts_the_cosine(plan: Any) -> None:
    """RY(t) after RY(x) gives cos(x + t) and, for the mean, the gradient -sin(x + t)."""
    ansatz = QCNN(2, 2, "su4")
    engine = ExactEngine(ansatz, "double", plan=plan)
    angles = torch.zeros(15, dtype=torch.float64)
    angles[1] = 0.4  # RY of the first qubit
    angles.requires_grad_(True)
    z = engine.expectations(angles, engine.prepare(np.array([[0.3, 0.9]])))
    z[0, 0].backward()
    assert z[0].tolist() == pytest.approx([np.cos(0.7), np.cos(0.9)], abs=1e-14)
    assert angles.grad is not None
    assert angles.grad[1].item() == pytest.approx(-np.sin(0.7), abs=1e-14)


@pytest.mark.parametrize("ansatz", ANSAETZE, ids=str)
def test_exact_engine_agrees_with_its_pennylane_twin(ansatz: QCNN | VQC) -> None:
    angles, x = draw(ansatz, rows=3)
    z, gradient = expect(PennylaneEngine(ansatz, "default.qubit"), angles, x)
    assert z.shape == (3, len(ansatz.readout_wires))
    for plan in PLANS:
        for precision, tolerance in (("single", 1e-5), ("double", 1e-10)):
            engine = ExactEngine(ansatz, precision, plan=plan)  # type: ignore[arg-type]
            ours, ours_gradient = expect(engine, angles, x)
            np.testing.assert_allclose(ours, z, atol=tolerance, rtol=0)
            np.testing.assert_allclose(ours_gradient, gradient, atol=tolerance, rtol=0)


@pytest.mark.parametrize("ansatz", [QCNN(4, 1, "su4"), QCNN(3, 3, "paper"), VQC(3)], ids=str)
def test_parameter_shift_gives_the_gradient(ansatz: QCNN | VQC) -> None:
    angles, x = draw(ansatz, rows=2, seed=3)
    engine = ExactEngine(ansatz, "double")
    prepared = engine.prepare(x)
    leaf = torch.tensor(angles, requires_grad=True)
    engine.expectations(leaf, prepared).sum().backward()
    shifted = []
    for i in range(ansatz.angles):
        step = torch.zeros(ansatz.angles, dtype=torch.float64)
        step[i] = np.pi / 2
        plus, minus = (
            engine.expectations(leaf.detach() + s * step, prepared).sum() for s in (1, -1)
        )
        shifted.append(((plus - minus) / 2).item())
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), shifted, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 3), st.integers(0, 10**6), st.sampled_from(PLANS))
def test_expectations_are_bounded_and_follow_row_order(
    n: int, readouts: int, seed: int, plan: Any
) -> None:
    ansatz = QCNN(n, min(readouts, n), "su4")
    angles, x = draw(ansatz, rows=5, seed=seed)
    engine = ExactEngine(ansatz, plan=plan)
    theta = torch.tensor(angles, dtype=torch.float32)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(5))
    z = engine.expectations(theta, engine.prepare(x))
    assert z.abs().max().item() <= 1 + 1e-5
    taken = engine.expectations(theta, engine.prepare(x).take(order))
    again = engine.expectations(theta, engine.prepare(x[order.numpy()]))
    torch.testing.assert_close(taken, again, atol=0, rtol=0)
    torch.testing.assert_close(taken, z[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [19, 20])
def test_the_most_qubits_run(n: int) -> None:
    """19 is what no size of cells divides well."""
    ansatz = QCNN(n)
    engine = ExactEngine(ansatz)
    z = engine.expectations(torch.zeros(ansatz.angles), engine.prepare(np.zeros((1, n))))
    assert z.item() == pytest.approx(1.0, abs=1e-5)


def test_fused_blocks_are_few() -> None:
    ansatz = QCNN(4)
    blocks = fuse(gates_of(ansatz.layers), 4)
    assert [block.wires for block in blocks] == [
        *[(0, 1), (2, 3), (1, 2), (0, 3)],
        *[(0, 1), (2, 3), (1, 3)],  # the last pooling joins the convolution on the same pair
    ]


def test_engine_follows_the_settings() -> None:
    double = build_engine(QCNN(2), QuantumSettings(qubits=2, precision="double"))
    assert isinstance(double, ExactEngine)
    assert double.dtype == torch.float64
    assert build_engine(QCNN(2), QuantumSettings(qubits=2)).dtype == torch.float32
    twin = build_engine(QCNN(2), QuantumSettings(qubits=2, backend="pennylane:default.qubit"))
    assert twin.name == "pennylane:default.qubit"


@pytest.mark.parametrize("name", ["default.mixed", "lightning.qubit"])
def test_other_pennylane_devices_agree(name: str) -> None:
    if name == "lightning.qubit":
        pytest.importorskip("pennylane_lightning")
    ansatz = QCNN(2, 2, "paper")
    angles, x = draw(ansatz, rows=2)
    ours = expect(ExactEngine(ansatz, "double"), angles, x)
    theirs = expect(PennylaneEngine(ansatz, name), angles, x)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("exakt", r"quantum.backend = 'exakt'; accepted: exact, pennylane:<device>, aer"),
        ("pennylane:", r"quantum.backend = 'pennylane:'; accepted"),
        ("pennylane:no.such", r"no such device is installed; accepted: .*default\.qubit.*install"),
        ("pennylane:default.gaussian", r"cannot be used \(.*accepted: a qubit device"),
        ("pennylane:default.qutrit.mixed", r"cannot be used \(.*accepted: a qubit device"),
        ("pennylane:default.qutrit", r"cannot be used \(.*accepted: a qubit device"),
    ],
)
def test_wrong_backend_is_one_clear_error(backend: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        build_engine(QCNN(2), QuantumSettings(qubits=2, backend=backend))


def test_cuda_without_cuda_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"quantum\.device = 'cuda'.*set quantum.device=cpu"):
        build_engine(QCNN(2), QuantumSettings(qubits=2, device="cuda"))
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("plan", PLANS)
def test_cuda_agrees_with_cpu(plan: Any) -> None:
    ansatz = QCNN(4, 3)
    angles, x = draw(ansatz, rows=5)
    found = []
    for device in ("cpu", "cuda"):
        engine = ExactEngine(ansatz, "double", device, plan)  # type: ignore[arg-type]
        theta = torch.tensor(angles, device=engine.device, requires_grad=True)
        z = engine.expectations(theta, engine.prepare(x))
        (slope,) = torch.autograd.grad(z.square().sum(), theta)
        found.append((z.detach().cpu(), slope.cpu()))
    torch.testing.assert_close(found[0], found[1], atol=1e-10, rtol=0)
