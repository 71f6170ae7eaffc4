"""Circuits for devices: traced from an ansatz, transpiled once per backend, cached on disk.

There is no second definition of the circuit: the traced gates' operations are made with symbolic
slots and features, and pennylane-qiskit writes them as Qiskit gates.

All points and rows of all steps are values of the same parameters, so one transpiled circuit serves
a whole run, and the next one: the file's name is a hash of everything that it depends on, the
backend's calibration included.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import derive_seed, write_bytes, write_json
from quantum.circuit import Circuit
from quantum.circuit.to_qiskit import to_qiskit

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

FORMAT = 1  # of the cached files; raise it when tracing or scoring changes


@dataclass(frozen=True)
class Facts:
    """What a transpiled circuit costs.

    Attributes
    ----------
    backend : str
        The backend's own name.
    two_qubit_gates, depth, two_qubit_depth : int
        Counts after transpiling; depths of all and of the two-qubit gates.
    error : float
        Estimated probability that some gate or read-out fails: one less the product of the
        calibrated fidelities; 0 without calibration.
    seconds : float
        Duration of one shot's gates, seconds, read-out and reset not in it; 0 where the backend
        does not say.
    readouts : tuple of int
        Physical qubits that are measured, in order of the read-outs.
    """

    backend: str
    two_qubit_gates: int
    depth: int
    two_qubit_depth: int
    error: float
    seconds: float
    readouts: tuple[int, ...]


@dataclass(frozen=True)
class Compiled:
    """A circuit of the backend's own gates, its parameters unbound.

    Attributes
    ----------
    circuit : QuantumCircuit
        On the backend's qubits.
    facts : Facts
        What it costs.
    names : tuple of str
        The traced circuit's parameters: S slots, then n features.
    key : str
        Hash of all that the circuit depends on.
    ansatz : Circuit
        The ansatz's circuit, whatever it was transpiled for.
    """

    circuit: QuantumCircuit
    facts: Facts
    names: tuple[str, ...]
    key: str
    ansatz: Circuit


def compile_circuit(
    ansatz: Circuit, backend: Any, level: int, trials: int, seed: int, folder: Path
) -> Compiled:
    """Return an ansatz's circuit for a backend: from the cache, or transpiled and cached.

    Parameters
    ----------
    ansatz : Circuit
        The circuit.
    backend : BackendV2
        Where it is to run.
    level : int
        The transpiler's optimisation level, 0 to 3.
    trials : int
        Seeds tried; the lowest estimated error wins, then the fewest two-qubit gates.
    seed : int
        The first of the seeds is derived from it.
    folder : Path
        The cache; made if missing.

    Returns
    -------
    Compiled
        The same whether it was cached or made.
    """
    key = _key(ansatz, backend, level, trials, seed)
    compiled = _read(folder / f"{key}.qpy", folder / f"{key}.json", key, ansatz)
    if compiled is None:
        compiled = _best(ansatz, backend, level, trials, seed, key)
        _write(folder, compiled)
    return compiled


def _key(ansatz: Circuit, backend: Any, level: int, trials: int, seed: int) -> str:
    import qiskit

    depends = [FORMAT, qiskit.__version__, repr(ansatz), backend.name, calibrated_at(backend)]
    text = json.dumps([*depends, backend.num_qubits, level, trials, seed])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def calibrated_at(backend: Any) -> str:
    """Return when a backend was last calibrated, or an empty string."""
    properties = getattr(backend, "properties", None)
    found = properties() if callable(properties) else None
    return str(getattr(found, "last_update_date", ""))


def _best(ansatz: Circuit, backend: Any, level: int, trials: int, seed: int, key: str) -> Compiled:
    from qiskit.transpiler import generate_preset_pass_manager

    traced, names = to_qiskit(ansatz)
    found: list[tuple[Facts, QuantumCircuit]] = []
    for trial in range(trials):
        with warnings.catch_warnings():
            # qiskit loads every installed plugin, and some warn of their own age.
            warnings.simplefilter("ignore", DeprecationWarning)
            passes = generate_preset_pass_manager(
                optimization_level=level,
                backend=backend,
                seed_transpiler=derive_seed(seed, "transpile", trial),
            )
            circuit = passes.run(traced)
        found.append((_facts(circuit, backend, ansatz.readout_wires), circuit))
    facts, circuit = min(found, key=lambda each: (each[0].error, each[0].two_qubit_gates))
    return Compiled(circuit, facts, names, key, ansatz)


def _facts(circuit: QuantumCircuit, backend: Any, readouts: tuple[int, ...]) -> Facts:
    places = circuit.layout.final_index_layout() if circuit.layout else range(circuit.num_qubits)
    measured = tuple(places[wire] for wire in readouts)
    log_fidelity, pairs, ready = 0.0, 0, [0.0] * circuit.num_qubits
    for step in circuit.data:
        qubits = tuple(circuit.find_bit(bit).index for bit in step.qubits)
        pairs += len(qubits) == 2
        error, duration = _calibrated(backend.target, step.operation.name, qubits)
        log_fidelity += math.log1p(-error)
        end = max(ready[qubit] for qubit in qubits) + duration
        for qubit in qubits:
            ready[qubit] = end
    errors = [_calibrated(backend.target, "measure", (qubit,))[0] for qubit in measured]
    log_fidelity += sum(math.log1p(-error) for error in errors)
    return Facts(
        backend=str(backend.name),
        two_qubit_gates=pairs,
        depth=circuit.depth(),
        two_qubit_depth=circuit.depth(lambda step: len(step.qubits) == 2),
        error=1.0 - math.exp(log_fidelity),
        seconds=max(ready),
        readouts=measured,
    )


def _calibrated(target: Any, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
    """Return an operation's error (below 1) and duration in seconds; 0 where they are unknown."""
    known = target[name].get(qubits) if name in target.operation_names else None
    error = min(getattr(known, "error", None) or 0.0, 0.999)
    return error, getattr(known, "duration", None) or 0.0


def _read(circuit_file: Path, facts_file: Path, key: str, ansatz: Circuit) -> Compiled | None:
    """Return what is cached under a key; None if there is nothing, or it cannot be read."""
    from qiskit import qpy
    from qiskit.qpy.exceptions import QpyError

    try:
        record = json.loads(facts_file.read_text(encoding="utf-8"))
        content = circuit_file.read_bytes()
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            return None
        (circuit,) = qpy.load(io.BytesIO(content))
        facts = Facts(**{**record["facts"], "readouts": tuple(record["facts"]["readouts"])})
        return Compiled(circuit, facts, tuple(record["names"]), key, ansatz)
    except (OSError, ValueError, KeyError, TypeError, QpyError):
        return None


def _write(folder: Path, made: Compiled) -> None:
    from qiskit import qpy

    content = io.BytesIO()
    qpy.dump(made.circuit, content)
    record = {
        "facts": asdict(made.facts),
        "names": made.names,
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
    }
    write_bytes(folder / f"{made.key}.qpy", content.getvalue())
    write_json(folder / f"{made.key}.json", record)
