"""Many clients' local training in JAX: `jax.vmap` over the clients, one jitted function.

What a JAX user would write: the loss of one client, `jax.value_and_grad`, `jax.vmap`, Adam, and
`jax.jit` of a whole training by `jax.lax.scan`. Three ways to compute the expectations:
`pennylane_z` and `tensorcircuit_z` of `bench.simulators`, which apply every gate to every row, and
`by_hand`, which applies the gates once a client, to the columns of an identity.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.simulators import one_thread_jax
from core import DistillSettings, TrainSettings
from quantum.circuit import Block, Circuit, Trainable
from quantum.engines.exact.matrices import GENERATORS, embed, fixed_matrix, pauli

Expectation = Callable[[Any, Any], Any]
"""<Z> of the read-out: (angles (P,), features (rows, n)) -> (rows,)."""
BETA1, BETA2, EPS = 0.9, 0.999, 1e-6  # as `quantum.training.optimisers.adam_step`


@dataclass(frozen=True)
class Fleet:
    """Rows of many clients, all of one size.

    Attributes
    ----------
    features : numpy.ndarray, shape (clients, rows, n), float32
        Features in radians.
    labels : numpy.ndarray, shape (clients, rows)
        Classes 0 and 1.
    soft_labels : numpy.ndarray, shape (clients, rows, 2)
        Teachers' probabilities.
    """

    features: np.ndarray
    labels: np.ndarray
    soft_labels: np.ndarray

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.features)

    def part(self, start: int, end: int) -> Fleet:
        """Return some of the clients."""
        chosen = slice(start, end)
        return Fleet(self.features[chosen], self.labels[chosen], self.soft_labels[chosen])


def train(
    fleet: Fleet,
    expectation: Expectation,
    theta: np.ndarray,
    settings: TrainSettings,
    distill: DistillSettings,
    steps: int,
    together: int,
) -> tuple[np.ndarray, float, float]:
    """Train all clients from the same start, so many together.

    Parameters
    ----------
    fleet : Fleet
        The clients' rows.
    expectation : callable
        How to compute the read-out.
    theta : numpy.ndarray, shape (P + 2,), float32
        Angles, scale and bias to start from.
    settings, distill : TrainSettings, DistillSettings
        Learning rate; lambda and tau.
    steps : int
        Steps of Adam.
    together : int
        Clients of one launch.

    Returns
    -------
    numpy.ndarray, shape (clients,)
        Each client's loss before the last update.
    float
        Seconds of training.
    float
        Seconds that tracing and compiling took before that.
    """
    jax = one_thread_jax()
    run = jax.jit(jax.vmap(_client(expectation, settings, distill, steps), (None, 0, 0, 0)))
    together = min(together, len(fleet))
    parts = [fleet.part(i, i + together) for i in range(0, len(fleet), together)]
    began, compiled = time.perf_counter(), {}
    with warnings.catch_warnings():  # PennyLane asks for complex128 and for old names of JAX's
        warnings.simplefilter("ignore")
        for part in parts:
            if len(part) not in compiled:
                compiled[len(part)] = run.lower(theta, *_arrays(jax, part)).compile()
    ready = time.perf_counter()
    losses = [np.asarray(compiled[len(part)](theta, *_arrays(jax, part))) for part in parts]
    return np.concatenate(losses), time.perf_counter() - ready, ready - began


def _arrays(jax: Any, fleet: Fleet) -> list[Any]:
    values = (fleet.features, fleet.labels, fleet.soft_labels)
    return [jax.numpy.asarray(value, dtype="float32") for value in values]


def _client(
    expectation: Expectation, settings: TrainSettings, distill: DistillSettings, steps: int
) -> Callable[..., Any]:
    """One client's training: (theta, features, labels, soft labels) -> last step's loss."""
    jax = one_thread_jax()
    numpy, weight, tau, rate = (
        jax.numpy,
        distill.weight,
        distill.temperature,
        settings.learning_rate,
    )

    def loss(theta: Any, x: Any, y: Any, soft: Any) -> Any:
        logits = theta[-2] * expectation(theta[:-2], x) + theta[-1]
        hard = numpy.mean(jax.nn.softplus(logits) - y * logits)
        target = jax.nn.softmax(numpy.log(soft) / tau, axis=-1)
        student = jax.nn.log_softmax(numpy.stack([0 * logits, logits], axis=-1) / tau, axis=-1)
        divergence = (target * (numpy.log(target) - student)).sum(-1).mean()
        return (1 - weight) * hard + weight * tau**2 * divergence

    def run(theta: Any, x: Any, y: Any, soft: Any) -> Any:
        def step(state: tuple[Any, Any, Any], number: Any) -> tuple[tuple[Any, Any, Any], Any]:
            theta, first, second = state
            value, slope = jax.value_and_grad(loss)(theta, x, y, soft)
            first = BETA1 * first + (1 - BETA1) * slope
            second = BETA2 * second + (1 - BETA2) * slope**2
            size = rate / (1 - BETA1**number)
            theta = theta - size * first / (numpy.sqrt(second / (1 - BETA2**number)) + EPS)
            return (theta, first, second), value

        zero = numpy.zeros_like(theta)
        numbers = numpy.arange(1, steps + 1, dtype="float32")
        return jax.lax.scan(step, (theta, zero, zero), numbers)[1][-1]

    return run


def by_hand(ansatz: Circuit) -> Expectation:
    """Read-out of a circuit whose encoding is RY(x_i) on qubit i, the trained part built once.

    All gates become 4x4 matrices in one array and each block one product of them; the blocks act
    on the 2^n columns of an identity, and rows meet the observable that comes of it, one quadratic
    form each.
    """
    numpy = one_thread_jax().numpy
    n, wire = ansatz.n_qubits, ansatz.readout_wires[0]
    slots, fixed, turned = (numpy.asarray(table) for table in _gate_table(ansatz.layers))

    def z(angles: Any, x: Any) -> Any:
        half = angles[slots][..., None, None] / 2
        gates = fixed + numpy.cos(half) * turned[0] + numpy.sin(half) * turned[1]
        while gates.shape[1] > 1:  # later gates from the left
            gates = gates[:, 1::2] @ gates[:, ::2]
        columns = numpy.eye(2**n, dtype="complex64").reshape([2] * n + [2**n])
        for block, matrix in zip(ansatz.layers, gates[:, 0], strict=True):
            moved = numpy.tensordot(matrix.reshape(2, 2, 2, 2), columns, ((2, 3), block.wires))
            columns = numpy.moveaxis(moved, (0, 1), block.wires)
        signs = numpy.asarray([1.0, -1.0], "float32").reshape(2, *[1] * (n - wire))
        flat = columns.reshape(2**n, -1)
        observable = (flat.conj().T @ (columns * signs).reshape(2**n, -1)).real
        states = numpy.ones((len(x), 1), "float32")
        for qubit in range(n):
            angle = x[:, qubit] / 2
            pair = numpy.stack([numpy.cos(angle), numpy.sin(angle)], axis=1)
            states = (states[:, :, None] * pair[:, None, :]).reshape(len(x), -1)
        return ((states @ observable) * states).sum(1)

    return z


def _gate_table(blocks: Sequence[Block]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each block's gates as ``A + cos(t/2) C + sin(t/2) S`` of a slot t, padded with identities.

    Slots have shape (blocks, gates), A (blocks, gates, 4, 4), C and S together one more axis.
    """
    length = 1 << max(len(block.gates) - 1 for block in blocks).bit_length()
    slots = np.zeros((len(blocks), length), dtype=np.int64)
    fixed = np.tile(np.eye(4, dtype=np.complex64), (len(blocks), length, 1, 1))
    turned = np.zeros((2, *fixed.shape), dtype=np.complex64)
    for row, block in enumerate(blocks):
        for column, gate in enumerate(block.gates):
            place = row, column
            local = tuple(block.wires.index(wire) for wire in gate.wires)
            if gate.angle is None:
                fixed[place] = embed(fixed_matrix(gate), local).numpy()
                continue
            generator = embed(pauli(GENERATORS[gate.name]), local).numpy()
            if isinstance(gate.angle, Trainable):
                fixed[place], slots[place] = 0, gate.angle.index
                turned[0][place], turned[1][place] = np.eye(4), -1j * generator
            elif isinstance(gate.angle, float):
                half = gate.angle / 2
                fixed[place] = np.cos(half) * np.eye(4) - 1j * np.sin(half) * generator
            else:
                raise ValueError("the features are written at the start only")
    return slots, fixed, turned


def random_fleet(clients: int, rows: int, qubits: int) -> Fleet:
    """Draw clients whose labels follow a feature, each with a shift of its own."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-math.pi / 2, math.pi / 2, (clients, rows, qubits)).astype(np.float32)
    margin = features[..., 0] + 0.3 * features[..., 1] + rng.normal(0, 0.3, (clients, 1))
    labels = (margin + rng.normal(0, 0.5, margin.shape) > 0).astype(np.int64)
    likely = 1 / (1 + np.exp(-2 * margin))
    return Fleet(features, labels, np.stack([1 - likely, likely], axis=-1))
