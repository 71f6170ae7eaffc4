"""The engine of small circuits, against closed forms and the plain state vector."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import QuantumSettings, UserError
from quantum import build_classifier
from quantum.circuit import Block, Circuit, Gate, Trainable, gates_of, trace_ansatz
from quantum.circuit.expression import symbols
from quantum.circuit.gates import UNITARY
from quantum.engines.exact import reference_expectations
from quantum.engines.pauli import PauliEngine, can_run, compiled
from quantum.engines.pauli.engine import MOST_LANES
from quantum.engines.pauli.rotation_plan import pairs_of, plan_of
from tests.command import ROOT
from tests.quantum.odd_circuits import Iqp, Reupload

X = symbols("feature", 3)
ENCODING = tuple(Block("x", (i,), (Gate("RY", (i,), X[i]),)) for i in range(3))
ONE_QUBIT = ("PauliX", "PauliY", "PauliZ", "Hadamard", "S", "T")
TWO_QUBIT = ("CNOT", "CZ", "SWAP")
ROTATIONS = {"RX": 1, "RY": 1, "RZ": 1, "IsingXX": 2, "IsingYY": 2, "IsingZZ": 2}


def circuit(
    gates: list[Gate], readouts: Any = (((1.0, (0,)),),), encoding: Any = ENCODING
) -> Circuit:
    layers = tuple(Block(gate.name, gate.wires, (gate,)) for gate in gates)
    slots = sum(gate.is_trainable for gate in gates)
    return Circuit(str(hash(layers)), "a test's", 3, (slots,), encoding, layers, readouts)


def both(ansatz: Circuit, rows: int = 11, seed: int = 0) -> tuple[Any, Any]:
    """Values, and gradient of a random sum of them: ours, and the plain engine's."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-2, 2, (rows, ansatz.n_qubits))
    weights = rng.normal(size=ansatz.angles)
    factors = torch.from_numpy(rng.normal(size=(rows, len(ansatz.readouts))))
    engine = PauliEngine(ansatz)
    encoded = engine.prepare(features)
    found = []
    computations: list[Any] = [
        lambda slots: engine.expectations(slots, encoded),
        lambda slots: reference_expectations(ansatz, slots, features),
    ]
    for compute in computations:
        leaf = torch.tensor(weights, requires_grad=True)
        z = compute(ansatz.slot_values(leaf))
        (gradient,) = torch.autograd.grad((z * factors).sum(), leaf)
        found.append((z.detach().numpy(), gradient.numpy()))
    return found[0], found[1]


def agree(ansatz: Circuit, rows: int = 11, seed: int = 0) -> None:
    ours, plain = both(ansatz, rows, seed)
    np.testing.assert_allclose(ours[0], plain[0], atol=1e-12)
    np.testing.assert_allclose(ours[1], plain[1], atol=1e-11)


def test_one_rotation_by_hand() -> None:
    """``<Z>`` after RY(x) and RY(w) is cos(x + w); its slope is -sin(x + w)."""
    engine = PauliEngine(circuit([Gate("RY", (0,), Trainable(0))]))
    encoded = engine.prepare(np.array([[0.3, 9.0, 9.0], [-1.0, 9.0, 9.0]]))
    z = engine.evaluate(np.array([[0.5]]), encoded)[0, :, 0]
    np.testing.assert_allclose(z, [math.cos(0.8), math.cos(-0.5)], atol=1e-15)
    slope = engine.pull_back(np.array([0.5]), encoded, np.array([[1.0], [10.0]]))
    np.testing.assert_allclose(slope, [-math.sin(0.8) - 10 * math.sin(-0.5)], atol=1e-14)


def test_a_rotation_turns_what_anticommutes_with_it() -> None:
    """About Z of one qubit: X goes to X cos t - Y sin t, so Y feeds X: one pair, (Y, X)."""
    first, second = pairs_of((0, 1), 1, 1)  # words are numbered x + 2 z: I X Z Y
    assert (first.tolist(), second.tolist()) == ([3], [1])
    back = pairs_of((0, 1), -1, 1)
    assert (back[0].tolist(), back[1].tolist()) == ([1], [3])


@pytest.mark.parametrize("model", ["qcnn", "vqc", "strongly-entangling", "ttn", "product"])
@pytest.mark.parametrize(("qubits", "classes"), [(2, 2), (3, 2), (4, 2), (4, 3)])
def test_shipped_ansaetze_agree_with_the_state_vector(
    model: str, qubits: int, classes: int
) -> None:
    built = build_classifier(QuantumSettings(model=model, qubits=qubits), classes)
    assert isinstance(built.engine, PauliEngine)
    agree(built.ansatz)


gate_lists = st.lists(
    st.one_of(
        st.builds(Gate, st.sampled_from(ONE_QUBIT), st.integers(0, 2).map(lambda wire: (wire,))),
        st.builds(
            lambda name, pair: Gate(name, pair),
            st.sampled_from(TWO_QUBIT),
            st.permutations(range(3)).map(lambda p: tuple(p[:2])),
        ),
        st.builds(
            lambda name, wires, trained, angle: Gate(
                name, wires[: ROTATIONS[name]], Trainable(0) if trained else angle
            ),
            st.sampled_from(sorted(ROTATIONS)),
            st.permutations(range(3)).map(tuple),
            st.booleans(),
            st.floats(-7, 7),
        ),
    ),
    min_size=1,
    max_size=12,
)
words = st.sets(st.sampled_from([(0,), (1,), (2,), (0, 2), (0, 1, 2)]), min_size=1).map(
    lambda found: tuple((1.0 + k, word) for k, word in enumerate(sorted(found)))
)


@settings(max_examples=60)
@given(gate_lists, st.lists(words, min_size=1, max_size=3))
def test_any_known_gates_agree_with_the_state_vector(gates: list[Gate], readouts: Any) -> None:
    numbered, count = [], 0
    for gate in gates:
        numbered.append(
            Gate(gate.name, gate.wires, Trainable(count)) if gate.is_trainable else gate
        )
        count += gate.is_trainable
    ansatz = circuit([*numbered, Gate("RX", (1,), Trainable(count))], tuple(readouts))
    assert can_run(ansatz)
    agree(ansatz, rows=3)


def test_fixed_gates_in_the_encoding() -> None:
    ansatz = trace_ansatz(Iqp(), 3)
    assert {"Hadamard", "CNOT"} & {gate.name for gate in gates_of(ansatz.encoding)}
    agree(ansatz)


ROOT_OF_X = ((0.5 + 0.5j, 0.5 - 0.5j), (0.5 - 0.5j, 0.5 + 0.5j))
NO_CLIFFORD = ((1, 0), (0, complex(math.cos(0.3), math.sin(0.3))))


def test_matrices_that_are_clifford_are_known() -> None:
    gates = [Gate("RY", (0,), Trainable(0)), Gate(UNITARY, (0,), matrix=ROOT_OF_X)]
    assert can_run(circuit(gates))
    agree(circuit(gates))
    assert not can_run(circuit([gates[0], Gate(UNITARY, (0,), matrix=NO_CLIFFORD)]))


def test_what_is_large_or_uploads_again_is_left_to_other_engines() -> None:
    assert not can_run(trace_ansatz(Reupload(), 3))
    assert not can_run(build_classifier(QuantumSettings(qubits=7), 2).ansatz)
    assert can_run(build_classifier(QuantumSettings(qubits=4, uploads=1), 2).ansatz)
    assert not can_run(build_classifier(QuantumSettings(qubits=4, uploads=2), 2).ansatz)


def test_nothing_is_turned_that_no_row_meets() -> None:
    """RY alone gives no Y, and a gate behind the read-out's light cone does nothing."""
    gates = [Gate("RY", (0,), Trainable(0)), Gate("RX", (2,), Trainable(1))]
    plan = plan_of(circuit(gates))
    assert (len(plan.first), plan.size, len(plan.columns)) == (1, 2, 2)


def test_many_points_are_one_by_one() -> None:
    engine = PauliEngine(build_classifier(QuantumSettings(), 3).ansatz)
    rng = np.random.default_rng(0)
    encoded = engine.prepare(rng.normal(size=(5, 4)))
    points = rng.normal(size=(MOST_LANES + 3, engine.ansatz.slots))
    together = engine.evaluate(points, encoded)
    alone = [engine.evaluate(point[None], encoded)[0] for point in points]
    assert together.shape == (MOST_LANES + 3, 5, 4)
    assert np.array_equal(together, np.stack(alone))


def test_rows_taken_are_the_rows() -> None:
    engine = PauliEngine(build_classifier(QuantumSettings(), 2).ansatz)
    features = np.random.default_rng(0).normal(size=(21, 4))
    point = np.random.default_rng(1).normal(size=(1, engine.ansatz.slots))
    chosen = [20, 3, 3, 0, 7, 8, 15, 16, 1]
    some = engine.prepare(features).take(torch.tensor(chosen))
    assert some.rows == len(chosen)
    whole = engine.evaluate(point, engine.prepare(features))
    assert np.array_equal(engine.evaluate(point, some), whole[:, chosen])


def test_a_prediction_and_a_training_load_no_torch() -> None:
    code = """
import sys
import numpy as np
from core import DistillSettings, QuantumSettings, TrainSettings
from quantum import TrainingData, build_classifier, evaluate, train_local
classifier = build_classifier(QuantumSettings(), 2)
data = TrainingData(np.ones((3, 4)), np.array([0, 1, 1]), np.full((3, 2), 0.5))
result = train_local(
    classifier, classifier.initial(0), data, TrainSettings(), DistillSettings().in_round(1), steps=2
)
evaluate(classifier, result.parameters, data.features)
print([name for name in ("torch", "pennylane", "transformers") if name in sys.modules])
"""
    words = [sys.executable, "-c", code]
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_compiled_functions_have_a_place_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiled.VARIABLE, str(tmp_path))
    copy = compiled.own_copy(b"x = 1", "digest")
    assert copy == tmp_path / "llm-qfl" / "digest" / "kernels.py"
    assert copy.parent.stat().st_mode & 0o077 == 0
    copy.write_text("x = 2")  # a damaged copy is written again
    assert compiled.own_copy(b"x = 1", "digest") == copy
    assert copy.read_bytes() == b"x = 1"


@pytest.mark.parametrize("spoiled", ["digest", "."])
def test_a_folder_that_others_may_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    """Numba runs what it reads there."""
    monkeypatch.setenv(compiled.VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "llm-qfl" / "digest"
    place.mkdir(parents=True)
    os.chmod(tmp_path / "llm-qfl" / spoiled, 0o777)
    used = compiled.own_copy(b"x = 1", "digest")
    assert used == tmp_path / "cache" / "llm-qfl-compiled" / "digest" / "kernels.py"


def test_what_numba_stores_lies_beside_the_copy(tmp_path: Path) -> None:
    """By itself it takes NUMBA_CACHE_DIR, whoever may write there."""
    code = """
from quantum.engines.pauli.compiled import kernels
print(kernels().rotate.stats.cache_path)
print(kernels().__file__)
"""
    own = {**os.environ, compiled.VARIABLE: str(tmp_path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    stored, copy = map(Path, done.stdout.splitlines())
    assert stored == copy.parent / "__pycache__"
    assert [path.name for path in tmp_path.iterdir()] == ["llm-qfl"]


def test_where_nothing_can_be_written_temporary_files_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with a file system that is read only but for /tmp."""
    (tmp_path / "file").write_text("no folder")
    for variable in (compiled.VARIABLE, "XDG_CACHE_HOME", "LLM_QFL_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    used = compiled.own_copy(b"x = 1", "digest")
    assert used == tmp_path / f"llm-qfl-compiled-{os.getuid()}" / "digest" / "kernels.py"
    monkeypatch.setattr(compiled, "folders", lambda: iter([tmp_path / "file"]))
    with pytest.raises(UserError, match="set NUMBA_CACHE_DIR"):
        compiled.own_copy(b"x = 1", "digest")
