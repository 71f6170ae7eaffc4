"""Gradient steps of other simulators that a benchmark compares with, each an optional import.

Every step computes the same: the cross-entropy of a circuit with one read-out, and its gradient.
Where a library has no IsingXX, IsingYY or IsingZZ, each is written as a rotation between two
CNOTs, the shortest form in the gates that it has.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantum.circuit import Circuit, Gate, Trainable, gates_of

Step = Callable[[], tuple[Any, Any]]
"""One gradient step: returns the loss and the gradient (P + 2,) as the library's own arrays."""


class NotInstalledError(RuntimeError):
    """The simulator is not installed here, or does not import."""


@dataclass(frozen=True)
class Problem:
    """What all simulators compute.

    Attributes
    ----------
    ansatz : Circuit
        The circuit, one read-out.
    features : numpy.ndarray, shape (rows, n), float32
        Features in radians.
    labels : numpy.ndarray, shape (rows,)
        Classes 0 and 1.
    theta : numpy.ndarray, shape (P + 2,), float32
        Angles in radians, scale and bias.
    """

    ansatz: Circuit
    features: np.ndarray
    labels: np.ndarray
    theta: np.ndarray


def random_problem(ansatz: Circuit, rows: int) -> Problem:
    """Draw features, labels and parameters; the same ones at each call."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-np.pi / 2, np.pi / 2, (rows, ansatz.n_qubits)).astype(np.float32)
    labels = rng.integers(0, 2, rows)
    return Problem(ansatz, features, labels, rng.uniform(-1, 1, ansatz.angles + 2).astype("f4"))


def one_thread_jax() -> Any:
    """Import JAX, on the CPU with one thread; its own look at ``XLA_FLAGS`` comes only once.

    Raises
    ------
    NotInstalledError
        If JAX is not installed.
    """
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ.setdefault("XLA_FLAGS", flags)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
    except ImportError as error:
        raise NotInstalledError("JAX is not installed") from error
    return jax


def jax_step(problem: Problem) -> tuple[Step, float]:
    """PennyLane on JAX: default.qubit, backprop, one jitted function, float32, one thread.

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
    return _compiled(problem, pennylane_z(problem.ansatz))


def tensorcircuit_step(problem: Problem) -> tuple[Step, float]:
    """TensorCircuit-NG on JAX: vmap over the rows, one jitted function, complex64, one thread.

    Results and errors as for `jax_step`.
    """
    return _compiled(problem, tensorcircuit_z(problem.ansatz))


def _compiled(problem: Problem, expectation: Callable[[Any, Any], Any]) -> tuple[Step, float]:
    jax = one_thread_jax()
    numpy = jax.numpy
    x, y = numpy.asarray(problem.features), numpy.asarray(problem.labels)

    def loss(theta: Any) -> Any:
        logits = theta[-2] * expectation(theta[:-2], x) + theta[-1]
        return numpy.mean(jax.nn.softplus(logits) - y * logits)

    theta = numpy.asarray(problem.theta)
    began = time.perf_counter()
    with warnings.catch_warnings():  # PennyLane asks for complex128 and for old names of JAX's
        warnings.simplefilter("ignore")
        compiled = jax.jit(jax.value_and_grad(loss)).lower(theta).compile()
    seconds = time.perf_counter() - began
    return lambda: jax.block_until_ready(compiled(theta)), seconds


def pennylane_z(ansatz: Circuit) -> Callable[[Any, Any], Any]:
    """<Z> of the read-out by PennyLane on JAX: (angles (P,), features (rows, n)) -> (rows,)."""
    import pennylane as qml

    from quantum.circuit.to_pennylane import operations

    one_thread_jax()
    wires = qml.wires.Wires(range(ansatz.n_qubits))

    def circuit(angles: Any, x: Any) -> Any:
        operations(ansatz.blocks, wires, angles, x)
        return qml.expval(qml.Z(ansatz.readout_wires[0]))

    device = qml.device("default.qubit", wires=ansatz.n_qubits)
    qnode: Callable[[Any, Any], Any] = qml.QNode(
        circuit, device, interface="jax", diff_method="backprop"
    )
    return qnode


TENSORCIRCUIT_NAMES = {
    "RX": "rx", "RY": "ry", "RZ": "rz", "IsingXX": "rxx", "IsingYY": "ryy", "IsingZZ": "rzz",
    "CNOT": "cnot", "Hadamard": "h",
}  # fmt: skip


def tensorcircuit_z(ansatz: Circuit) -> Callable[[Any, Any], Any]:
    """<Z> of the read-out by TensorCircuit-NG: (angles (P,), features (rows, n)) -> (rows,)."""
    one_thread_jax()
    tensorcircuit = _library("tensorcircuit")
    backend = tensorcircuit.set_backend("jax")
    tensorcircuit.set_dtype("complex64")

    def z(angles: Any, x: Any) -> Any:
        circuit = tensorcircuit.Circuit(ansatz.n_qubits)
        for gate in gates_of(ansatz.blocks):
            add = getattr(circuit, TENSORCIRCUIT_NAMES[gate.name])
            if gate.angle is None:
                add(*gate.wires)
            else:
                add(*gate.wires, theta=_angle(gate, angles, x[None])[..., 0])
        return backend.real(circuit.expectation_ps(z=[ansatz.readout_wires[0]]))

    return backend.vmap(z, vectorized_argnums=1)  # type: ignore[no-any-return]


def _angle(gate: Gate, angles: Any, x: Any) -> Any:
    """Angle of a gate for each row, shape (rows,) or (1,)."""
    from quantum.circuit.to_pennylane import angle_value

    if isinstance(gate.angle, Trainable):
        return angles[gate.angle.index][None]
    if isinstance(gate.angle, float):
        return np.array([gate.angle], dtype=np.float32)
    return angle_value(gate.angle, angles, x)  # type: ignore[arg-type]


def torchquantum_step(problem: Problem, device: str = "cpu") -> Step:
    """torchquantum: its batched state vector, gate by gate, autograd, complex64.

    Parameters
    ----------
    problem : Problem
        What to compute.
    device : str
        torch's device.

    Raises
    ------
    NotInstalledError
        If it is not installed, or does not import.
    """
    library = _library("torchquantum")
    return _torch_step(problem, lambda t, x: _torchquantum_z(library, problem.ansatz, t, x), device)


def pyqtorch_step(problem: Problem, device: str = "cpu") -> Step:
    """Pasqal's pyqtorch: its batched state vector, gate by gate, autograd, complex64.

    Parameters and errors as for `torchquantum_step`.
    """
    import torch

    library, ansatz = _library("pyqtorch"), problem.ansatz
    gates = list(elementary(gates_of(ansatz.blocks)))
    operations = [
        library.CNOT(*gate.wires)
        if gate.angle is None
        else getattr(library, gate.name)(gate.wires[0], _name(number, gate))
        for number, gate in enumerate(gates)
    ]
    circuit = library.QuantumCircuit(ansatz.n_qubits, operations)
    with warnings.catch_warnings():  # torch's, of complex modules
        warnings.simplefilter("ignore")
        circuit = circuit.to(device=device, dtype=torch.complex64)

    def z(theta: Any, x: Any) -> Any:
        state = library.zero_state(ansatz.n_qubits, device=x.device, dtype=torch.complex64)
        states = library.run(circuit, state, _values(gates, theta, x))
        return torch_z(states.reshape(-1, len(x)).T, ansatz)

    return _torch_step(problem, z, device)


def qandle_step(problem: Problem, device: str = "cpu") -> Step:
    """Qandle: a 2^n x 2^n matrix a gate, autograd, complex64.

    Parameters and errors as for `torchquantum_step`.
    """
    library, ansatz = _library("qandle"), problem.ansatz
    gates = list(elementary(gates_of(ansatz.blocks)))
    layers = [
        library.CNOT(*gate.wires)
        if gate.angle is None
        else getattr(library, gate.name)(gate.wires[0], name=_name(number, gate))
        for number, gate in enumerate(gates)
    ]
    circuit = library.Circuit(layers, num_qubits=ansatz.n_qubits).to(device)

    def z(theta: Any, x: Any) -> Any:
        start = x.new_zeros(len(x), 2**ansatz.n_qubits, dtype=torch.complex64)
        start[:, 0] = 1.0
        return torch_z(circuit(start, **_values(gates, theta, x)), ansatz)

    import torch

    return _torch_step(problem, z, device)


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except Exception as error:  # old releases fail in their own imports under newer libraries
        raise NotInstalledError(f"{name} is not installed") from error


def _torch_step(problem: Problem, expectation: Callable[[Any, Any], Any], device: str) -> Step:
    import torch

    x = torch.as_tensor(problem.features, device=device)
    y = torch.as_tensor(problem.labels, dtype=torch.float32, device=device)
    theta = torch.tensor(problem.theta, device=device, requires_grad=True)

    def step() -> tuple[Any, Any]:
        logits = theta[-2] * expectation(theta, x) + theta[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
        (gradient,) = torch.autograd.grad(loss, theta)
        return loss.detach(), gradient

    return step


def elementary(gates: Iterable[Gate]) -> Iterator[Gate]:
    """Write Ising rotations as RX or RZ between two CNOTs; other gates stay.

    ``CNOT`` turns X of its control into XX and Z of its target into ZZ; turning both qubits by
    ``RX(pi / 2)`` turns YY into ZZ.
    """
    quarter = math.pi / 2
    for gate in gates:
        if not gate.name.startswith("Ising"):
            yield gate
            continue
        name, target = ("RX", gate.wires[0]) if gate.name == "IsingXX" else ("RZ", gate.wires[1])
        turn = gate.wires if gate.name == "IsingYY" else ()
        yield from (Gate("RX", (wire,), quarter) for wire in turn)
        yield Gate("CNOT", gate.wires)
        yield Gate(name, (target,), gate.angle)
        yield Gate("CNOT", gate.wires)
        yield from (Gate("RX", (wire,), -quarter) for wire in turn)


def _name(number: int, gate: Gate) -> str:
    """Name of a gate's angle: one for all gates of the same fixed angle or slot."""
    if isinstance(gate.angle, Trainable):
        return f"slot{gate.angle.index}"
    return f"fixed{gate.angle}" if isinstance(gate.angle, float) else f"gate{number}"


def _values(gates: Iterable[Gate], theta: Any, x: Any) -> dict[str, Any]:
    """Angles by name, each of shape (rows,) or (1,)."""
    import torch

    values = {}
    for number, gate in enumerate(gates):
        name = _name(number, gate)
        if gate.angle is not None and name not in values:
            values[name] = torch.as_tensor(_angle(gate, theta, x), device=x.device)
    return values


def torch_z(states: Any, ansatz: Circuit) -> Any:
    """<Z> of the read-out, shape (rows,), of states (rows, 2^n)."""
    wire = ansatz.readout_wires[0]
    weights = states.abs().square().reshape(len(states), 2**wire, 2, -1).sum((1, 3))
    return weights[:, 0] - weights[:, 1]


TORCHQUANTUM_NAMES = {**TENSORCIRCUIT_NAMES, "Hadamard": "hadamard"}


def _torchquantum_z(library: Any, ansatz: Circuit, theta: Any, x: Any) -> Any:
    """<Z> of the read-out, shape (rows,)."""
    import torch

    device = library.QuantumDevice(n_wires=ansatz.n_qubits, bsz=len(x), device=x.device)
    for gate in gates_of(ansatz.blocks):
        act = getattr(library.functional, TORCHQUANTUM_NAMES[gate.name])
        if gate.angle is None:
            act(device, wires=list(gate.wires))
        else:
            angle = torch.as_tensor(_angle(gate, theta, x), device=x.device)
            act(device, wires=list(gate.wires), params=angle.reshape(-1, 1))
    return torch_z(device.get_states_1d(), ansatz)
