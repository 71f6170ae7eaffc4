"""Circuits: what an ansatz is traced into, and the gates that ansätze are written with.

This door imports light; what needs PennyLane loads on first use.
"""

from quantum.circuit.circuit import Circuit
from quantum.circuit.gates import Block, Gate, Trainable, gates_of
from quantum.circuit.recorder import (
    CNOT,
    CZ,
    RX,
    RY,
    RZ,
    SWAP,
    Hadamard,
    IsingXX,
    IsingYY,
    IsingZZ,
    PauliX,
    PauliY,
    PauliZ,
    S,
    T,
    block,
)
from quantum.circuit.trace import Ansatz, build_ansatz, trace_ansatz
