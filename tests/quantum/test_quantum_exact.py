"""The exact engine's parts: schedules, matrices, steps, products, and the adjoint by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from quantum.circuit import Circuit
from quantum.circuit.gates import Gate, Trainable, gates_of
from quantum.engines.exact import ExactEngine
from quantum.engines.exact.contraction import SHORT_RUN, arrange
from quantum.engines.exact.dense_unitary import ReadRows
from quantum.engines.exact.engine import is_real_product
from quantum.engines.exact.fusion import FusedBlock, fuse
from quantum.engines.exact.matrices import GroupMatrices, pauli, real_pair
from quantum.engines.exact.product_states import interleave, multiply, pull_product_back
from quantum.engines.exact.schedule import (
    GROUP,
    Group,
    Schedule,
    light_cone,
    partitions,
    schedules,
    step_cost,
)
from quantum.engines.exact.workspace import Workspace
from tests.quantum.conftest import drawn, gradient, qcnn, vqc

CPU = torch.device("cpu")
ANGLES, X = drawn(qcnn(6), rows=4)
ANSAETZE = [qcnn(3), qcnn(5, 3), qcnn(8), qcnn(9, 3, "paper"), vqc(3, 2), vqc(6, 1, 2, 2)]


@pytest.fixture
def moving() -> Callable[[np.ndarray], torch.Tensor]:
    """Expectations of six qubits by a schedule that moves whole states, and keeps a tape."""
    engine = ExactEngine(qcnn(6), "double")
    schedule = next(s for s in engine.schedules if len(s.middle.groups) > 2)
    return lambda x: engine.expectations(ANGLES, engine.encode(x, schedule))


def test_steps_in_flight_do_not_disturb_each_other(
    moving: Callable[[np.ndarray], torch.Tensor],
) -> None:
    """Forward passes between a forward pass and its gradient must not touch its tape."""
    alone = [gradient(moving(rows), ANGLES) for rows in (X, -X)]
    first, second = moving(X), moving(-X)
    torch.testing.assert_close(gradient(first, ANGLES), alone[0], atol=0, rtol=0)
    torch.testing.assert_close(gradient(second, ANGLES), alone[1], atol=0, rtol=0)


def test_a_second_backward_pass_gives_the_same(
    moving: Callable[[np.ndarray], torch.Tensor],
) -> None:
    total = moving(X).sum()
    (once,) = torch.autograd.grad(total, ANGLES, retain_graph=True)
    moving(-X)  # takes the workspace that was given back
    (twice,) = torch.autograd.grad(total, ANGLES)
    torch.testing.assert_close(once, twice, atol=1e-14, rtol=0)


def plan(ansatz: Circuit) -> tuple[tuple[FusedBlock, ...], tuple[Schedule, ...]]:
    blocks = fuse(gates_of(ansatz.layers), ansatz.n_qubits)
    real = is_real_product(ansatz.encoding)
    return blocks, schedules(blocks, ansatz.n_qubits, ansatz.readout_wires, real)


@pytest.mark.parametrize("ansatz", [*ANSAETZE, qcnn(12), qcnn(16, 3), vqc(12)], ids=str)
def test_schedules_apply_the_light_cone_once_and_in_order(ansatz: Circuit) -> None:
    blocks, found = plan(ansatz)
    cone = light_cone(blocks, ansatz.readout_wires)
    for schedule in found:
        order = [index for group in schedule.groups for index in group.blocks]
        assert sorted(order) == list(cone)
        for wire in range(ansatz.n_qubits):
            mine = [index for index in order if wire in blocks[index].wires]
            assert mine == sorted(mine)
        for group in schedule.groups:
            assert len(group.wires) == min(GROUP, ansatz.n_qubits)
            touched = {wire for index in group.blocks for wire in blocks[index].wires}
            assert touched <= set(group.wires)


def test_light_cone_leaves_out_what_is_not_read() -> None:
    blocks = [FusedBlock(pair, ()) for pair in ((0, 1), (2, 3), (1, 2), (0, 1))]
    assert light_cone(blocks, [3]) == (1,)
    assert light_cone(blocks, [2]) == (0, 1, 2)
    assert light_cone(blocks, [0]) == (0, 1, 2, 3)


def test_the_example_of_the_docs() -> None:
    """docs/engine.md: a QCNN of 8 qubits, one read-out, 256 rows."""
    engine = ExactEngine(qcnn(8))
    schedule = engine.schedule_for(256)
    gates = len(list(gates_of(engine.ansatz.blocks)))
    assert (gates, len(engine.schedules)) == (245, 16)
    assert len({index for group in schedule.groups for index in group.blocks}) == 19
    assert [cell.groups[0].blocks for cell in schedule.cells] == [(0, 1, 4), (2, 3, 6)]
    assert [group.wires for group in schedule.middle.groups] == [(3, 2, 4, 5), (0, 1, 7, 6)]
    assert [group.blocks for group in schedule.middle.groups] == [(5, 9, 10), (7, 8, 11)]
    assert schedule.late is not None
    assert schedule.late.wires == (1, 3, 5, 7)
    assert [group.blocks for group in schedule.late.groups] == [tuple(range(12, 19))]
    observable = next(s for s in engine.schedules if s.heisenberg)
    plans = (engine.schedule_for(16), schedule, observable)
    costs = [[round(step_cost(p, rows, 1) / 1e6) for rows in (16, 256)] for p in plans]
    assert costs == [[10, 55], [12, 50], [88, 109]]


def test_twelve_qubits_need_two_passes_over_whole_states() -> None:
    ansatz = qcnn(12)
    schedule = ExactEngine(ansatz).schedule_for(256)
    assert [len(cell.wires) for cell in schedule.cells] == [6, 6]
    assert len(schedule.middle.groups) == 2
    assert schedule.late is not None
    assert len(schedule.late.wires) == 6


def test_cost_grows_with_rows_and_readouts() -> None:
    _, found = plan(qcnn(8, 3))
    for schedule in found:
        costs = [step_cost(schedule, rows, 3) for rows in (32, 256, 2048)]
        assert all(more > less for less, more in pairwise(costs))
    observable = next(s for s in found if s.heisenberg)
    assert step_cost(observable, 10**6, 3) > 2.5 * step_cost(observable, 10**6, 1)


@pytest.mark.parametrize("n", range(2, 21))
def test_whatever_the_settings_accept_has_a_schedule(n: int) -> None:
    ansaetze: list[Circuit] = [
        *(qcnn(n, r, b) for r in sorted({1, min(3, n), n // 2, n}) for b in ("su4", "paper")),
        *(vqc(n, r, f, 1) for r in sorted({1, n}) for f in (1, 2)),
    ]
    for ansatz in ansaetze:
        _, found = plan(ansatz)
        assert found, str(ansatz)
        assert any(not schedule.heisenberg for schedule in found), str(ansatz)
        for schedule in found:
            wires = sorted(wire for cell in schedule.cells for wire in cell.wires)
            assert wires == list(range(n))


def test_a_short_last_cell_joins_its_neighbour() -> None:
    sizes = [[len(cell) for cell in each.cells] for each in partitions(19, real=True)]
    assert sizes == [[4, 4, 4, 7], [6, 6, 7]]  # 8 and 11 would be too many
    assert [[len(c) for c in each.cells] for each in partitions(12, real=True)] == [
        [4, 4, 4],
        [6, 6],
        [8, 4],
    ]


def test_blocks_that_leave_a_cell_idle_have_a_schedule() -> None:
    """One block on twelve qubits: no way to cut gives every cell something to do."""
    (schedule,) = schedules([FusedBlock((0, 1), ())], 12, [0], real=True)
    (cell,) = schedule.cells
    assert len(cell.wires) == 12
    assert not cell.groups
    assert [group.blocks for group in schedule.groups] == [(0,)]


def test_group_matrices_are_the_gates_product() -> None:
    """A group of one block on qubits (2, 0) of (0, 1, 2): RX and CNOT by hand, on both sides."""
    gates = (Gate("RX", (2,), Trainable(0)), Gate("CNOT", (2, 0)))
    build = GroupMatrices([FusedBlock((0, 2), gates)], [Group((0, 1, 2), (0,))], torch.float64, CPU)
    matrix, _ = build.build(torch.tensor([0.8], dtype=torch.float64))
    turn = torch.matrix_exp(-0.4j * pauli("IIX"))
    flip = (pauli("III") + pauli("IIZ") + pauli("XII") - pauli("XIZ")) / 2
    torch.testing.assert_close(matrix[0], real_pair(flip @ turn), atol=1e-14, rtol=0)
    torch.testing.assert_close(matrix[0].T @ matrix[0], torch.eye(16).double())


@pytest.mark.parametrize("tail", [3, SHORT_RUN])  # axis by axis, and by an index
@pytest.mark.parametrize("after", [(2, 3, 0, 1), (0, 2, 1, 3), (3, 1, 2, 0), (2, 1, 0, 3)])
def test_arranging_is_a_permutation_of_axes_and_undone(tail: int, after: tuple[int, ...]) -> None:
    workspace = Workspace(torch.float64, CPU)
    state = torch.arange(2 * 16 * tail).double().view(2, 16, tail)
    arrangement = arrange((0, 1, 2, 3), after)
    moved = arrangement.apply(state, workspace, "a")
    axes = (0, *(wire + 1 for wire in after), 5)
    expected = state.view(2, 2, 2, 2, 2, tail).permute(axes).reshape(2, 16, tail)
    assert torch.equal(moved, expected)
    assert torch.equal(arrangement.undo(moved, workspace, "b"), state)


def test_axes_that_stay_neighbours_are_moved_as_one() -> None:
    assert arrange((0, 1, 2, 3), (2, 3, 0, 1)).sizes == (4, 4)
    state = torch.zeros(2, 4, 3)
    assert arrange((1, 0), (1, 0)).apply(state, Workspace(torch.float64, CPU), "c") is state


@pytest.mark.parametrize("words", [["ZI"], ["IZ", "ZI"], ["ZZ", "II"]])
def test_rows_that_are_read_give_the_expectations(words: list[str]) -> None:
    """Two qubits of three, against the observables' quadratic forms; gradients by autograd."""
    torch.manual_seed(0)
    signs = torch.stack([pauli(word).diagonal().real for word in words])
    unitary = real_pair(torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex128))[0])
    state = torch.randn(2, 4, 2, 5, dtype=torch.float64)
    state = (state / state.square().sum((0, 1, 2)).sqrt()).view(8, 10).requires_grad_(True)
    unitary.requires_grad_(True)
    after = (unitary @ state).square().view(2, 4, 2, 5).sum((0, 2))
    weights = torch.randn(len(words), 5, dtype=torch.float64)
    expected = torch.autograd.grad((weights * (signs @ after)).sum(), (unitary, state))
    with torch.no_grad():
        read = ReadRows(signs, torch.float64, CPU)
        rows = read.take(unitary)
        images = rows @ state
        torch.testing.assert_close(read.expectations(images.square(), 5), signs @ after)
        slope = read.slope(images, weights, torch.empty_like(images))
        found = read.put_back(slope @ state.T, unitary), rows.T @ slope
    # A change of the states' lengths is none of a unitary's: only what is left of it counts.
    lengths = (weights * signs.min(dim=1, keepdim=True).values).sum(0).repeat(2)
    torch.testing.assert_close(found[1] + 2 * state * lengths, expected[1])
    tangent = real_pair(torch.randn(4, 4, dtype=torch.complex128))
    turn = (tangent - tangent.T) @ unitary.detach()
    torch.testing.assert_close((found[0] * turn).sum(), (expected[0] * turn).sum())


def test_outer_product_and_its_gradient() -> None:
    """Axes a0 b0 a1, against one complex einsum."""
    generator = torch.manual_seed(1)
    left, right, weights = (
        torch.randn(2, size, 3, dtype=torch.float64, generator=generator) for size in (4, 2, 8)
    )
    left.requires_grad_(True)
    right.requires_grad_(True)
    interleaving = interleave((0, 2), (1,), (0, 1, 2))
    a, b = (torch.complex(t[0], t[1]) for t in (left, right))
    product = torch.einsum("xzr,yr->xyzr", a.view(2, 2, 3), b).reshape(8, 3)
    expected = torch.stack([product.real, product.imag])
    with torch.no_grad():
        ours = multiply(left, right, interleaving, torch.empty(2, 8, 3, dtype=torch.float64))
        torch.testing.assert_close(ours, expected)
        scratch = torch.empty_like(weights)
        found = pull_product_back(weights, left, right, interleaving, scratch)
    slopes = torch.autograd.grad((expected * weights).sum(), (left, right))
    torch.testing.assert_close(found, slopes)


def test_workspace_grows_and_is_reused() -> None:
    workspace = Workspace(torch.float32, CPU)
    small = workspace.empty("a", 2, 3)
    assert workspace.empty("a", 6).data_ptr() == small.data_ptr()
    assert workspace.empty("b", 2, 3).data_ptr() != small.data_ptr()
    assert workspace.empty("a", 3, 4).shape == (3, 4)


def test_sixteen_qubits_read_cosines_of_a_rotation() -> None:
    """As many read-outs as qubits: no pooling, and zero angles are the identity."""
    ansatz = qcnn(16, 16)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16))
    angles = torch.zeros(ansatz.angles)
    angles[1] = 0.4  # RY of qubit 0
    engine = ExactEngine(ansatz)
    z = engine.expectations(angles, engine.prepare(x)).numpy()
    shifted = x + 0.4 * (np.arange(16) == 0)
    np.testing.assert_allclose(z, np.cos(shifted), atol=1e-4)
