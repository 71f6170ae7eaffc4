"""One step's rows on FakeBrisbane: one job of ours beside one row at a time through PennyLane.

``python -m bench.devices [--rows 64] [--shots 256] [--slow-rows 4]`` measures in one run, one
thread: the su4 QCNN on 4 qubits under FakeBrisbane's noise. ``qiskit.remote`` runs a few rows only
and is scaled to all, as it takes each row alone. Columns: seconds, jobs, and how many times faster
than ``qiskit.remote``. All paths must agree within shot error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from core import HardwareSettings, QuantumSettings
from quantum import Host, build_classifier
from quantum.ansatz.qcnn import QCNN
from quantum.circuit import trace_ansatz
from quantum.engines.base import evaluate_points

DEVICE = "brisbane"


def points(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles (1, P) and features (rows, 4)."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.5, (1, trace_ansatz(QCNN(), 4).angles)), rng.uniform(
        -1.5, 1.5, (rows, 4)
    )


def ours(backend: str, rows: int, shots: int, store: Path) -> tuple[float, int, np.ndarray]:
    """Return seconds and jobs of one step's rows, prepared and transpiled before, and <Z>."""
    hardware = HardwareSettings(shots=shots)
    host = Host(hardware, store=store, run=f"bench {time.time()}")
    classifier = build_classifier(QuantumSettings(backend=backend), 2, host)
    angles, features = points(rows)
    prepared = classifier.prepare(features)
    evaluate_points(classifier.engine, angles + 0.1, prepared)  # warm: simulator and noise made
    before = classifier.engine.usage  # type: ignore[attr-defined]
    began = time.perf_counter()
    found = evaluate_points(classifier.engine, angles, prepared)
    seconds = time.perf_counter() - began
    jobs = (classifier.engine.usage - before).jobs  # type: ignore[attr-defined]
    return seconds, jobs, found[0, :, 0]


def remote(rows: int, shots: int) -> tuple[float, int, np.ndarray]:
    """Return the same through PennyLane's ``qiskit.remote``, a row at a time."""
    import pennylane as qml
    from qiskit_ibm_runtime.fake_provider import FakeBrisbane

    from quantum.circuit.to_pennylane import operations

    ansatz = trace_ansatz(QCNN(), 4)
    wires = qml.wires.Wires(range(4))
    device = qml.device("qiskit.remote", wires=4, backend=FakeBrisbane())

    def circuit(angles: np.ndarray, row: np.ndarray) -> object:
        operations(ansatz.blocks, wires, angles, row)
        return qml.expval(qml.Z(ansatz.readout_wires[0]))

    node = qml.set_shots(qml.QNode(circuit, device), shots)
    angles, features = points(rows)
    node(angles[0], features[0])
    began = time.perf_counter()
    found = np.array([float(node(angles[0], row)) for row in features])
    return time.perf_counter() - began, rows, found


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.devices", description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--shots", type=int, default=256)
    parser.add_argument("--slow-rows", type=int, default=4)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    slow, _, reference = remote(given.slow_rows, given.shots)
    whole = slow * given.rows / given.slow_rows
    print(f"{given.rows} rows, {given.shots} shots, FakeBrisbane")
    print("| path | seconds | jobs | faster than qiskit.remote |\n|---|---|---|---|")
    rows = f"{given.rows} (scaled from {given.slow_rows})"
    print(f"| qiskit.remote, a row at a time | {whole:.1f} | {rows} | 1x |", flush=True)
    with tempfile.TemporaryDirectory() as store:
        for name in (f"fake:{DEVICE}", f"aer:{DEVICE}"):
            seconds, jobs, found = ours(name, given.rows, given.shots, Path(store))
            print(f"| {name} | {seconds:.2f} | {jobs} | {whole / seconds:.0f}x |", flush=True)
            off = np.abs(found[: len(reference)] - reference).max()
            print(f"<!-- largest difference {off:.3f}, shot error {given.shots**-0.5:.3f} -->")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
