"""Gradient steps of other simulators that a benchmark compares with, each an optional import."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from quantum.circuit import Circuit, Gate, Trainable, gates_of

Step = Callable[[], None]


class NotInstalledError(RuntimeError):
    """The simulator is not installed here, or does not import."""


def jax_step(ansatz: Circuit, features: np.ndarray, labels: np.ndarray) -> tuple[Step, float]:
    """PennyLane on JAX: default.qubit, backprop, one jitted function, float32, one thread.

    Parameters
    ----------
    ansatz : Circuit
        The circuit, one read-out.
    features : numpy.ndarray, shape (rows, n)
        Features.
    labels : numpy.ndarray, shape (rows,)
        Classes 0 and 1.

    Returns
    -------
    callable
        One gradient step.
    float
        Seconds that tracing and compiling took.

    Raises
    ------
    NotInstalledError
        If JAX is not installed.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
    except ImportError as error:
        raise NotInstalledError("JAX is not installed") from error
    qnode = _jax_qnode(ansatz)
    numpy = jax.numpy
    x, y = numpy.asarray(features, dtype="float32"), numpy.asarray(labels)

    def loss(theta: Any) -> Any:
        logits = theta[-2] * qnode(theta[:-2], x) + theta[-1]
        return numpy.mean(jax.nn.softplus(logits) - y * logits)

    theta = numpy.asarray(np.random.default_rng(0).uniform(-1, 1, ansatz.angles + 2), "float32")
    began = time.perf_counter()
    with warnings.catch_warnings():  # PennyLane asks for complex128, JAX makes it complex64
        warnings.simplefilter("ignore", UserWarning)
        compiled = jax.jit(jax.grad(loss)).lower(theta).compile()
    seconds = time.perf_counter() - began
    return lambda: compiled(theta).block_until_ready(), seconds


def _jax_qnode(ansatz: Circuit) -> Any:
    import pennylane as qml

    from quantum.circuit.to_pennylane import operations

    wires = qml.wires.Wires(range(ansatz.n_qubits))

    def circuit(angles: Any, x: Any) -> Any:
        operations(ansatz.blocks, wires, angles, x)
        return qml.expval(qml.Z(ansatz.readout_wires[0]))

    device = qml.device("default.qubit", wires=ansatz.n_qubits)
    return qml.QNode(circuit, device, interface="jax", diff_method="backprop")


def torchquantum_step(
    ansatz: Circuit, features: np.ndarray, labels: np.ndarray, device: str = "cpu"
) -> Step:
    """torchquantum: its batched state vector, gate by gate, autograd, complex64.

    Parameters and errors as for `jax_step`; ``device`` is torch's.
    """
    try:
        import torchquantum
    except Exception as error:  # old releases fail in their own imports under newer Qiskit
        raise NotInstalledError("torchquantum is not installed") from error
    import torch

    x = torch.as_tensor(features, dtype=torch.float32, device=device)
    y = torch.as_tensor(labels, dtype=torch.float32, device=device)
    start = np.random.default_rng(0).uniform(-1, 1, ansatz.angles + 2)
    theta = torch.tensor(start, dtype=torch.float32, device=device, requires_grad=True)

    def step() -> None:
        z = _torchquantum_z(torchquantum, ansatz, theta, x)
        logits = theta[-2] * z + theta[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
        torch.autograd.grad(loss, theta)

    return step


TORCHQUANTUM_NAMES = {
    "RX": "rx", "RY": "ry", "RZ": "rz", "IsingXX": "rxx", "IsingYY": "ryy", "IsingZZ": "rzz",
    "CNOT": "cnot", "Hadamard": "hadamard",
}  # fmt: skip


def _torchquantum_z(library: Any, ansatz: Circuit, theta: Any, x: Any) -> Any:
    """<Z> of the read-out, shape (rows,)."""
    device = library.QuantumDevice(n_wires=ansatz.n_qubits, bsz=len(x), device=x.device)
    for gate in gates_of(ansatz.blocks):
        _torchquantum_gate(library.functional, device, gate, theta, x)
    states = device.get_states_1d().view(len(x), 2 ** ansatz.readout_wires[0], 2, -1)
    weights = states.abs().square().sum((1, 3))
    return weights[:, 0] - weights[:, 1]


def _torchquantum_gate(functional: Any, device: Any, gate: Gate, theta: Any, x: Any) -> None:
    import torch

    act = getattr(functional, TORCHQUANTUM_NAMES[gate.name])
    wires = list(gate.wires)
    if gate.angle is None:
        act(device, wires=wires)
        return
    if isinstance(gate.angle, Trainable):
        angle = theta[gate.angle.index].reshape(1, 1)
    elif isinstance(gate.angle, float):
        angle = torch.full((1, 1), gate.angle, device=x.device)
    else:
        angle = gate.angle.value(x).reshape(-1, 1)
    act(device, wires=wires, params=angle)
