"""Engines against closed forms, against each other, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import BackendError, QuantumSettings
from quantum.circuit import Circuit
from quantum.circuit.gates import gates_of
from quantum.engines.exact import ExactEngine, reference_expectations
from quantum.engines.exact.engine import pick_device
from quantum.engines.exact.fusion import fuse
from quantum.engines.factory import build_engine
from quantum.engines.pauli import PauliEngine
from quantum.engines.pennylane import PennylaneEngine
from tests.quantum.conftest import drawn, gradient, qcnn, vqc

PLAIN: list[Circuit] = [qcnn(2), qcnn(3, 3, "paper"), qcnn(5, 2), qcnn(4, 2, "paper", 3)]
PLAIN += [qcnn(3, 1, uploads=2), vqc(2, 2), vqc(4, 3, 2), vqc(5, 5, 1, 1)]
ANSAETZE = [
    *(qcnn(n, r, b) for n in range(2, 9) for r in (1, 3) if r <= n for b in ("su4", "paper")),
    *(qcnn(9), qcnn(10, 3, "paper")),
    *(vqc(n, r, f) for n in range(2, 8) for r in (1, 3) if r <= n for f in (1, 2)),
    *(vqc(8, 3, 1, 2), vqc(9, 1, 2, 2)),
    *(qcnn(2, uploads=2), qcnn(3, 1, "paper", 4), qcnn(4, 3, uploads=3), qcnn(5, 1, uploads=2)),
    *(qcnn(5, 5, "paper", 2), qcnn(6, 3, "paper", 2), qcnn(6, 6)),
    qcnn(9, 1, "paper", 3),  # phases in two runs, cells in two
]
MODES = {"tape": (2**28, 2**20), "chunks": (2**28, 0), "undone": (0, 2**20), "both": (0, 0)}
IN_EVERY_MODE: list[Circuit] = [qcnn(3), qcnn(5, 3), qcnn(9, 3, "paper"), qcnn(4, 3, uploads=3)]
IN_EVERY_MODE += [qcnn(9, 1, "paper", 3), vqc(3, 2), vqc(6, 1, 2, 2)]
MOST_LATE = 4  # qubits of an observable of many uploads: beyond, the same code on large matrices


@pytest.mark.parametrize("ansatz", PLAIN, ids=str)
def test_the_plain_engine_is_pennylanes(ansatz: Circuit) -> None:
    angles, x = drawn(ansatz, rows=3)
    pennylane = PennylaneEngine(ansatz, "default.qubit")
    expected = pennylane.expectations(angles, pennylane.prepare(x))
    z = reference_expectations(ansatz, angles, x)
    torch.testing.assert_close(z, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient(z, angles), gradient(expected, angles), atol=1e-11, rtol=0)


@pytest.mark.parametrize(
    ("ansatz", "mode"),
    [*((a, "tape") for a in ANSAETZE), *((a, m) for a in IN_EVERY_MODE for m in list(MODES)[1:])],
    ids=str,
)
def test_every_schedule_agrees_with_the_plain_engine(
    ansatz: Circuit, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape, chunk = MODES[mode]
    monkeypatch.setattr("quantum.engines.exact.execution_plan.TAPE_BYTES", tape)
    monkeypatch.setattr("quantum.engines.exact.workspace.CHUNK", chunk)
    angles, x = drawn(ansatz, rows=3)
    expected = reference_expectations(ansatz, angles, x)
    slope = gradient(expected, angles)
    engine = ExactEngine(ansatz, "double")
    for schedule in engine.schedules:
        late = 0 if schedule.late is None else len(schedule.late.wires)
        if schedule.middle.uploads and late > MOST_LATE:
            continue
        z = engine.expectations(angles, engine.encode(x, schedule))
        torch.testing.assert_close(z, expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient(z, angles), slope, atol=1e-11, rtol=0)
    if mode == "tape":
        single, leaf = ExactEngine(ansatz), angles.detach().float().requires_grad_(True)
        z = single.expectations(leaf, single.prepare(x))
        torch.testing.assert_close(z.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(gradient(z, leaf).double(), slope, atol=3e-5, rtol=0)


def test_angle_encoding_reads_cosines() -> None:
    """su4 at zero angles is the identity: as many read-outs as qubits give cos x_i."""
    ansatz = qcnn(3, 3, "su4")
    x = np.array([[0.0, 0.5, -1.2], [1.5, -0.1, 0.7]])
    z = reference_expectations(ansatz, torch.zeros(ansatz.angles).double(), x)
    np.testing.assert_allclose(z, np.cos(x), atol=1e-14)


def test_one_rotation_shifts_the_cosine() -> None:
    """RY(t) after RY(x) gives cos(x + t) and the gradient -sin(x + t)."""
    angles = torch.zeros(15, dtype=torch.float64)
    angles[1] = 0.4  # RY of the first qubit
    angles.requires_grad_(True)
    z = reference_expectations(qcnn(2, 2, "su4"), angles, np.array([[0.3, 0.9]]))
    (slope,) = torch.autograd.grad(z[0, 0], angles)
    assert z[0].tolist() == pytest.approx([np.cos(0.7), np.cos(0.9)], abs=1e-14)
    assert slope[1].item() == pytest.approx(-np.sin(0.7), abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 3), st.integers(0, 10**6))
def test_expectations_are_bounded_and_follow_row_order(n: int, readouts: int, seed: int) -> None:
    ansatz = qcnn(n, min(readouts, n), "su4")
    angles, x = drawn(ansatz, rows=5, seed=seed)
    engine = ExactEngine(ansatz)
    theta = angles.detach().float()
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
    ansatz = qcnn(n)
    engine = ExactEngine(ansatz)
    z = engine.expectations(torch.zeros(ansatz.angles), engine.prepare(np.zeros((1, n))))
    assert z.item() == pytest.approx(1.0, abs=1e-5)


def test_fused_blocks_are_few() -> None:
    ansatz = qcnn(4)
    blocks = fuse(gates_of(ansatz.layers), 4)
    assert [block.wires for block in blocks] == [
        *[(0, 1), (2, 3), (1, 2), (0, 3)],
        *[(0, 1), (2, 3), (1, 3)],  # the last pooling joins the convolution on the same pair
    ]


def test_engine_follows_the_settings() -> None:
    double = build_engine(qcnn(8), QuantumSettings(qubits=8, precision="double"))
    assert isinstance(double, ExactEngine)
    assert double.dtype == torch.float64
    assert build_engine(qcnn(8), QuantumSettings(qubits=8)).dtype == torch.float32
    small = build_engine(qcnn(2), QuantumSettings(qubits=2))
    assert isinstance(small, PauliEngine)
    assert small.dtype == torch.float64
    twin = build_engine(qcnn(2), QuantumSettings(qubits=2, backend="pennylane:default.qubit"))
    assert twin.name == "pennylane:default.qubit"


@pytest.mark.parametrize("name", ["default.mixed", "lightning.qubit"])
def test_other_pennylane_devices_agree(name: str) -> None:
    if name == "lightning.qubit":
        pytest.importorskip("pennylane_lightning")
    ansatz = qcnn(2, 2, "paper")
    angles, x = drawn(ansatz, rows=2)
    ours, engine = reference_expectations(ansatz, angles, x), PennylaneEngine(ansatz, name)
    theirs = engine.expectations(angles, engine.prepare(x))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient(ours, angles), gradient(theirs, angles), atol=1e-6, rtol=0)


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
        build_engine(qcnn(2), QuantumSettings(qubits=2, backend=backend))


def test_cuda_without_cuda_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"quantum\.device = 'cuda'.*set quantum.device=cpu"):
        build_engine(qcnn(2), QuantumSettings(qubits=2, device="cuda"))
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_plain_engine() -> None:
    ansatz = qcnn(4, 3)
    angles, x = drawn(ansatz, rows=5)
    expected = reference_expectations(ansatz, angles, x)
    engine = ExactEngine(ansatz, "double", "cuda")
    theta = angles.detach().to("cuda").requires_grad_(True)
    for schedule in engine.schedules:
        z = engine.expectations(theta, engine.encode(x, schedule))
        torch.testing.assert_close(z.cpu(), expected, atol=1e-10, rtol=0)
        slope = gradient(z, theta).cpu()
        torch.testing.assert_close(slope, gradient(expected, angles), atol=1e-10, rtol=0)
