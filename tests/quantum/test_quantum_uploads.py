"""Features uploaded several times: closed forms, the twin, every engine, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from core import (
    DistillSettings,
    HardwareSettings,
    Noise,
    QuantumSettings,
    SettingsError,
    TrainSettings,
    parse_run,
)
from quantum import Host, build_ansatz, build_classifier, train_local
from quantum.circuit.drawing import draw_svg
from quantum.circuit.expression import symbols
from quantum.circuit.gates import Block, Gate, gates_of
from quantum.circuit.parts import ring
from quantum.costs import circuits_per_step
from quantum.engines.base import Engine
from quantum.engines.exact.contraction import phase_layers
from quantum.engines.exact.engine import ExactEngine, upload_phases
from quantum.engines.exact.fusion import fuse_layers
from quantum.engines.exact.workspace import READOUT_STATES, STATES
from quantum.engines.pennylane import PennylaneEngine
from quantum.training.problem import Problem
from tests.quantum.conftest import Blobs, drawn, qcnn

MOST_LATE = 4  # qubits of an observable: beyond, the same code on large matrices
PAULI = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


def run(engine: Engine, angles: Any, x: np.ndarray) -> np.ndarray:
    leaf = torch.as_tensor(angles, dtype=engine.dtype)
    return engine.expectations(leaf, engine.prepare(x)).detach().double().numpy()


# --- Closed forms ---


@pytest.mark.parametrize("uploads", [1, 2, 4])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_zero_angles_read_cosines_of_multiples(n: int, uploads: int) -> None:
    """All su4 blocks are the identity: each upload turns its qubit by x_i once more."""
    ansatz = qcnn(n, n, uploads=uploads)
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (4, n))
    z = run(ExactEngine(ansatz, "double"), np.zeros(ansatz.angles), x)
    np.testing.assert_allclose(z, np.cos(uploads * x), atol=1e-13)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
@settings(deadline=None, max_examples=15)
def test_a_coupling_between_two_uploads(t: float, first: float, second: float) -> None:
    """IsingXX(t) between RY(x): z_i = cos(t) cos(x_i)^2 - sin(x_i)^2, not a function of 2 x_i."""
    ansatz = qcnn(2, 2, uploads=2)
    angles = np.zeros(ansatz.angles)
    angles[6] = t
    x = np.array([[first, second]])
    z = run(ExactEngine(ansatz, "double"), angles, x)
    np.testing.assert_allclose(z, np.cos(t) * np.cos(x) ** 2 - np.sin(x) ** 2, atol=1e-12)


def rotation(word: str, angle: float) -> np.ndarray:
    factors = [np.eye(2) if letter == "I" else PAULI[letter] for letter in word]
    return np.asarray(expm(-0.5j * angle * reduce(np.kron, factors)))


def by_hand(t: np.ndarray, x: np.ndarray) -> float:
    """Two qubits, two uploads, su4: the circuit from its definition, 4x4 matrix by matrix."""
    su4 = ["ZI", "YI", "ZI", "IZ", "IY", "IZ", "XX", "YY", "ZZ", "ZI", "YI", "ZI", "IZ", "IY", "IZ"]
    upload = [rotation("YI", x[0]), rotation("IY", x[1])]
    layer = [[rotation(word, t[15 * k + i]) for i, word in enumerate(su4)] for k in (0, 1)]
    up, down = (np.eye(4)[list(order)] for order in ((0, 3, 2, 1), (0, 1, 3, 2)))  # CNOT 1-0, 0-1
    pool = [rotation("IZ", -np.pi / 2), up, rotation("ZI", t[30]), rotation("IY", t[31])]
    pool += [down, rotation("IY", t[32])]
    state = np.eye(4)[0]
    for matrix in (*upload, *layer[0], *upload, *layer[1], *pool):
        state = matrix @ state
    return float(np.abs(state) ** 2 @ [1, -1, 1, -1])


def test_two_qubits_are_the_matrices_by_hand() -> None:
    angles, x = drawn(qcnn(2, uploads=2), rows=3)
    t = angles.detach().numpy()
    z = run(ExactEngine(qcnn(2, uploads=2), "double"), t, x)
    np.testing.assert_allclose(z[:, 0], [by_hand(t, row) for row in x], atol=1e-13)


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32 - 1), st.data())
@settings(deadline=None, max_examples=20)
def test_uploads_are_the_degree_in_every_feature(
    n: int, uploads: int, seed: int, data: st.DataObject
) -> None:
    """z is a Fourier series of degree ``uploads`` in x_i (Schuld et al., arXiv 2008.08605)."""
    ansatz, wire = qcnn(n, n, uploads=uploads), data.draw(st.integers(0, n - 1))
    angles, x = drawn(ansatz, 1, seed)
    grid = 2 * np.pi * np.arange(16) / 16
    z = run(ExactEngine(ansatz, "double"), angles.detach(), x + np.outer(grid, np.eye(n)[wire]))
    strength = np.abs(np.fft.rfft(z, axis=0)).max(axis=1)
    assert strength[uploads + 1 :].max() < 1e-11
    assert strength[uploads] > 1e-6


# --- The exact engine's plans ---


def test_schedules_cut_behind_the_last_upload_and_cells_end_at_the_first() -> None:
    engine = ExactEngine(qcnn(8, uploads=3))
    blocks, (first, last) = fuse_layers(engine.ansatz.layers, engine.ansatz.encoding, 8)
    assert (first, last) == (8, 16)  # a ring of eight qubits before each
    kinds = set()
    for schedule in engine.schedules:
        cells = [i for cell in schedule.cells for group in cell.groups for i in group.blocks]
        late = [i for group in schedule.late.groups for i in group.blocks] if schedule.late else []
        assert all(index < first for index in cells)
        assert all(index >= last for index in late)
        assert len(schedule.middle.uploads) == 2
        assert not schedule.heisenberg
        assert sorted(i for g in schedule.groups for i in g.blocks) == list(range(len(blocks)))
        kinds.add((bool(cells), bool(late)))
    assert len(kinds) == 4


def test_one_upload_is_planned_as_ever() -> None:
    assert qcnn(6, 2, "paper", 1) == qcnn(6, 2, "paper")
    engine = ExactEngine(qcnn(6))
    assert all(schedule.middle.uploads == () for schedule in engine.schedules)
    assert engine.prepare(np.zeros((3, 6))).plan.phase_layers == ()
    assert any(schedule.heisenberg for schedule in engine.schedules)


def test_single_precision_mini_batches_are_rows_of_the_whole() -> None:
    ansatz = qcnn(9, uploads=2)
    angles, x = drawn(ansatz, rows=40)
    exact = run(ExactEngine(ansatz, "double"), angles.detach(), x)
    engine = ExactEngine(ansatz)
    rows = torch.tensor([7, 0, 31])
    batch = engine.prepare(x, 3).take(rows)
    single = [engine.expectations(angles.detach().float(), batch).numpy() for _ in range(2)]
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single[0], exact[rows], atol=2e-5)
    assert single[0].tobytes() == single[1].tobytes()


@pytest.mark.parametrize("readouts", [1, 3])
def test_uploads_hold_no_more_memory_than_is_counted(
    readouts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantum.engines.exact.execution_plan.TAPE_BYTES", 0)
    monkeypatch.setattr("quantum.engines.exact.workspace.CHUNK", 16 * 2**9)
    ansatz = qcnn(9, readouts, "paper", 4)
    angles = torch.zeros(ansatz.angles, requires_grad=True)
    for schedule in ExactEngine(ansatz).schedules:
        if schedule.late is None or len(schedule.late.wires) <= MOST_LATE:
            monkeypatch.setattr("quantum.engines.exact.workspace._POOLS", {})
            engine = ExactEngine(ansatz)
            prepared = engine.encode(np.zeros((32, 9)), schedule)
            engine.expectations(angles, prepared).sum().backward()
            held = prepared.plan.pool.nbytes / (8 * 16 * 2**9)
            assert held <= 1.02 * (STATES + READOUT_STATES * readouts)


def test_a_row_keeps_short_phases_not_states() -> None:
    """Two later uploads of 20 qubits: runs of 6, 7 and 7 qubits each."""
    prepared = ExactEngine(qcnn(20, uploads=3)).prepare(np.zeros((2, 20)), 2)
    phases = prepared.plan.widths[len(prepared.plan.schedule.cells) :]
    assert phases == [2 * 2**6, 2 * 2**7, 2 * 2**7] * 2
    assert prepared.values.shape == (sum(prepared.plan.widths), 2)


@pytest.mark.parametrize("order", [(2, 0, 1), (3, 9, 0, 1, 7, 2, 8, 6, 5, 4)])
def test_phase_layers_are_the_diagonal_of_all_qubits(order: tuple[int, ...]) -> None:
    n, generator = len(order), torch.manual_seed(0)
    encoding = qcnn(n).encoding
    x = torch.randn(5, n, dtype=torch.float64, generator=generator)
    state = torch.randn(2, 2**n, 5, dtype=torch.float64, generator=generator)
    turned = state
    layers = phase_layers(order, 4)
    assert [layer.place for layer in layers] == [4, 5][: len(layers)]
    for layer in layers:
        phases = upload_phases(encoding, layer.wires, x)
        turned = layer.apply(turned, phases, torch.empty_like(state))
    each = [torch.exp(torch.tensor([-0.5j, 0.5j]) * x[:, wire, None]) for wire in order]
    diagonal = reduce(lambda a, b: (a[:, :, None] * b[:, None]).flatten(1), each).T
    expected = torch.complex(state[0], state[1]) * diagonal
    torch.testing.assert_close(torch.complex(turned[0], turned[1]), expected)
    for layer in reversed(layers):
        phases = upload_phases(encoding, layer.wires, x)
        turned = layer.apply(turned, phases, torch.empty_like(state), back=True)
    torch.testing.assert_close(turned, state)


def test_an_upload_that_is_not_the_encoding_again_is_refused() -> None:
    two = qcnn(2)
    x = symbols("feature", 2)
    again = tuple(Block("RZ(x)", (i,), (Gate("RZ", (i,), x[i]),)) for i in (0, 1))
    cases: list[tuple[Any, Any]] = [
        ((*two.layers, two.encoding[0], *two.layers), two.encoding),
        ((*two.layers, *again, *two.layers), again),
    ]
    for layers, encoding in cases:
        with pytest.raises(ValueError, match="the whole encoding once more, one RY per qubit"):
            fuse_layers(layers, encoding, 2)


# --- The ansatz and its settings ---


def test_layers_are_rings_and_uploads_before_the_usual_ones() -> None:
    ansatz, usual = qcnn(5, 2, uploads=3), qcnn(5, 2)
    labels = [block.label for block in ansatz.layers]
    between = ["SU(4)"] * 5 + ["RY(x)"] * 5
    assert labels == [*between, *between, *(block.label for block in usual.layers)]
    assert [block.wires for block in ansatz.layers[:5]] == ring(range(5))
    assert ansatz.layers[5:10] == ansatz.encoding
    assert ansatz.angles == usual.angles + 2 * 5 * 15
    assert ansatz.two_qubit_gates == usual.two_qubit_gates + 2 * 5 * 3
    assert ansatz.readout_wires == usual.readout_wires
    assert ansatz.describe() == "QCNN su4, 5 qubits, 3 uploads"
    assert sum(gate.name == "RY" for gate in gates_of(qcnn(2, 1, "paper", 4).encoding)) == 2


def test_uploads_are_a_setting_of_the_qcnn_only() -> None:
    assert build_ansatz(QuantumSettings(uploads=2, readout="per-class"), 2) == qcnn(4, uploads=2)
    with pytest.raises(SettingsError, match=r"quantum.uploads = 0; accepted: 1 or more; .*raise"):
        qcnn(4, uploads=0)
    for assignments, message in (
        (["quantum.uploads=5"], r"quantum\.uploads = 5; accepted: .* at most 4"),
        (["quantum.model=vqc", "quantum.uploads=2"], r"uploads = 2 would be ignored because"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_run([], assignments)


def test_drawing_shows_every_upload() -> None:
    assert draw_svg(qcnn(3, uploads=2)).count(">RY(x)</text>") == 6
    assert draw_svg(qcnn(3)).count(">RY(x)</text>") == 3


# --- Devices ---


@pytest.fixture
def opened(device_store: Path) -> Callable[..., Any]:
    def build(backend: str, shots: int = 16, **chosen: Any) -> Any:
        own = HardwareSettings(shots=shots, layout_trials=1)
        host = Host(own, seed=5, store=device_store, run="test")
        quantum = QuantumSettings(
            qubits=2, uploads=2, backend=backend, readout="per-class", **chosen
        )
        return build_classifier(quantum, 2, host)

    return build


def test_noise_channels_see_every_upload() -> None:
    """Without channels nothing changes; with a bit flip after each gate, much does."""
    ansatz = qcnn(3, 1, "paper", 2)
    angles, x = drawn(ansatz, rows=1)
    clean = PennylaneEngine(ansatz, "default.mixed")
    noisy = [PennylaneEngine(ansatz, "default.mixed", noise=Noise(bit_flip=p)) for p in (1e-9, 0.2)]
    z = [run(engine, angles.detach(), x) for engine in (clean, *noisy)]
    np.testing.assert_allclose(z[0], z[1], atol=1e-6)
    assert np.abs(z[2]).max() < 0.3 * np.abs(z[0]).max()


@pytest.mark.parametrize("optimizer", ["spsa", "parameter-shift"])
def test_a_step_on_a_device_is_one_job(
    opened: Callable[..., Any], blobs: Blobs, optimizer: str
) -> None:
    device = opened("aer")
    train = TrainSettings(optimizer=optimizer)  # type: ignore[arg-type]
    result = train_local(
        device, device.initial(0), blobs(2, 2, 4), train, DistillSettings(weight=0), steps=2
    )
    assert device.angles == 15 * 2 + 3
    assert device.engine.usage.jobs == 2
    assert device.engine.usage.circuits == result.circuits
    assert result.circuits == 2 * circuits_per_step(train, 4, 33, "aer")
    assert result.circuits == 2 * 4 * (2 if optimizer == "spsa" else 1 + 2 * 33)


def test_shifts_of_angles_alone_are_the_gradient(opened: Callable[..., Any], blobs: Blobs) -> None:
    """Exactly on the exact engine, within shot error on Aer; features are never shifted."""
    data, found = blobs(2, 2, 3), []
    exact, aer = opened("exact", precision="double"), opened("aer", 2000)
    for classifier, method in ((exact, "by_autograd"), (exact, "by_shifts"), (aer, "by_shifts")):
        start = {**exact.initial(0), "angles": drawn(exact.ansatz, 1)[0].detach().numpy()}
        distill = DistillSettings(weight=0)
        problem = Problem(classifier, start, data, TrainSettings(), distill, seed=0)
        found.append(getattr(problem, method)(problem.anchor, 0)[1].numpy())
    assert np.abs(found[0][:15]).max() > 0.5  # the ring before the second upload matters
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)
    np.testing.assert_allclose(found[2], found[0], atol=0.15)
