"""Shapes, gate sequences and read-outs of the ansaetze, from their definition."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import QuantumSettings, SettingsError
from quantum import build_ansatz
from quantum.circuit import Circuit
from quantum.circuit.gates import ROTATIONS, Trainable, gates_of
from quantum.circuit.parts import ring
from tests.quantum.conftest import qcnn, vqc

QUBITS = st.integers(2, 20)


def test_ring_has_even_then_odd_pairs() -> None:
    assert ring([0, 1]) == [(0, 1)]
    assert ring([0, 1, 2, 3]) == [(0, 1), (2, 3), (1, 2), (3, 0)]
    assert ring([4, 5, 6]) == [(4, 5), (5, 6), (6, 4)]


@pytest.mark.parametrize(
    ("ansatz", "angles", "wires", "cnots"),
    [
        # 4 + 1 convolutions, 2 + 1 poolings
        (qcnn(4, 1, "su4"), 5 * 15 + 3 * 3, (3,), 5 * 3 + 3 * 2),
        (qcnn(4, 1, "paper"), 5 * 3 + 3 * 3, (3,), 5 * 3 + 3 * 2),
        # four qubits to three: one pooling, then a ring of three
        (qcnn(4, 3, "su4"), 7 * 15 + 3, (1, 2, 3), 7 * 3 + 2),
        # as many read-outs as qubits: one ring, no pooling
        (qcnn(3, 3, "su4"), 3 * 15, (0, 1, 2), 3 * 3),
        (qcnn(2, 1, "paper"), 3 + 3, (1,), 3 + 2),
        # 16 angles: the published genomic run
        (vqc(4, 1, 1, 3), 16, (0,), 6 * 2 + 3 * 3),
        (vqc(3, 3, 2, 1), 6, (0, 1, 2), 2 * 3 * 2 + 2),
    ],
)
def test_counts_by_hand(ansatz: Circuit, angles: int, wires: tuple[int, ...], cnots: int) -> None:
    assert ansatz.angles == angles
    assert ansatz.readout_wires == wires
    assert ansatz.two_qubit_gates == cnots


@given(QUBITS, st.integers(1, 6), st.sampled_from(["su4", "paper"]))
def test_every_qcnn_keeps_its_shape_contract(n: int, readouts: int, block: str) -> None:
    readouts = min(readouts, n)
    ansatz = qcnn(n, readouts, block)  # type: ignore[arg-type]
    gates = list(gates_of(ansatz.layers))
    indices = [gate.angle.index for gate in gates if isinstance(gate.angle, Trainable)]
    assert indices == list(range(ansatz.angles))
    assert all(gate.name in ROTATIONS for gate in gates if gate.angle is not None)
    assert len(set(ansatz.readout_wires)) == readouts
    assert {wire for gate in gates for wire in gate.wires} == set(range(n))


@given(QUBITS, st.integers(1, 6))
def test_last_pooling_writes_onto_a_qubit_that_is_read(n: int, readouts: int) -> None:
    ansatz = qcnn(n, min(readouts, n), "paper")
    pools = [block for block in ansatz.layers if block.label == "pool"]
    sources = {block.wires[0] for block in pools}
    assert not sources & set(ansatz.readout_wires)
    if pools:
        source, kept = pools[-1].wires
        assert kept in ansatz.readout_wires
        assert pools[-1].gates[-1].wires == (kept,)
        assert (source, kept) in [gate.wires for gate in pools[-1].gates]


def test_a_linear_readout_by_hand() -> None:
    """Every qubit's Z, neighbours' ZZ on the ring, and for two qubits their one pair."""
    chosen = QuantumSettings(readout="linear")
    assert build_ansatz(chosen, 16).readouts == tuple(((1.0, (k,)),) for k in range(4))
    pairs = [(0, 1), (0, 3), (1, 2), (2, 3)]
    words = [*((k,) for k in range(4)), *pairs]
    chosen = QuantumSettings(readout="linear-zz")
    assert build_ansatz(chosen, 16).readouts == tuple(((1.0, word),) for word in words)
    chosen = QuantumSettings(readout="linear-zz", qubits=2)
    assert len(build_ansatz(chosen, 4).readouts) == 3
    with pytest.raises(SettingsError, match=r"qubits = 2 with 5 classes; accepted: at least 3"):
        build_ansatz(chosen, 5)
    with pytest.raises(SettingsError, match=r"set quantum\.readout=linear, raise"):
        build_ansatz(QuantumSettings(readout="per-class"), 5)


def test_a_qcnn_pools_for_a_readout_per_class_only() -> None:
    circuit = build_ansatz(QuantumSettings(readout="linear"), 2)
    assert circuit.angles == 4 * 15
    assert [block.label for block in circuit.layers] == ["SU(4)"] * 4


def test_what_is_measured_is_in_the_identity() -> None:
    """Four numbers either way: jobs and stored circuits must not be taken for each other's."""
    linear, per_class = (
        build_ansatz(QuantumSettings(model="product", readout=kind), 4).identity
        for kind in ("linear", "per-class")
    )
    assert linear != per_class


def test_settings_choose_the_ansatz() -> None:
    paper: Any = {"readout": "per-class"}
    assert build_ansatz(QuantumSettings(**paper), 2) == qcnn(4, 1, "su4")
    assert build_ansatz(QuantumSettings(block="paper", **paper), 3) == qcnn(4, 3, "paper")
    chosen = QuantumSettings(model="vqc", reps=2, **paper)
    assert build_ansatz(chosen, 2) == vqc(4, 1, 1, 2)
    assert qcnn(4).describe() == "QCNN su4, 4 qubits"
    assert vqc(4).describe() == "VQC, 4 qubits"


@pytest.mark.parametrize(
    ("qubits", "classes", "message"),
    [
        (2, 3, r"quantum.qubits = 2 with 3 classes.*accepted: at least 3 qubits.*raise"),
        (4, 1, r"1 class\(es\); accepted: 2 or more"),
    ],
)
def test_classes_that_do_not_fit_are_refused(qubits: int, classes: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_ansatz(QuantumSettings(qubits=qubits, readout="per-class"), classes)


def test_sizes_out_of_bounds_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"quantum\.qubits = 21; accepted: 2 to 20"):
        qcnn(21)
    with pytest.raises(SettingsError, match=r"quantum\.reps = 0; accepted: 1 or more"):
        vqc(4, reps=0)


def test_door_imports_no_heavy_library() -> None:
    code = (
        "import sys, quantum; quantum.build_ansatz; "
        "print([m for m in ('torch', 'pennylane', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_unknown_name_of_the_door() -> None:
    import quantum

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quantum.nothing


def test_the_door_hands_out_what_it_names() -> None:
    import quantum

    door = ast.parse(Path(quantum.__file__).read_text())
    imports = [node for node in ast.walk(door) if isinstance(node, ast.ImportFrom)]
    assert all(hasattr(quantum, alias.name) for node in imports for alias in node.names)
