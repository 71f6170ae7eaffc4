"""Matrices of gates, in NumPy: what the engines and the Clifford rules are computed from."""

from __future__ import annotations

import functools
import math

import numpy as np

from quantum.circuit.gates import Gate

PAULI = {
    "I": ((1, 0), (0, 1)),
    "X": ((0, 1), (1, 0)),
    "Y": ((0, -1j), (1j, 0)),
    "Z": ((1, 0), (0, -1)),
}
WORDS = {
    "PauliX": {"X": 1.0},
    "PauliY": {"Y": 1.0},
    "PauliZ": {"Z": 1.0},
    "CNOT": {"II": 0.5, "ZI": 0.5, "IX": 0.5, "ZX": -0.5},
    "CZ": {"II": 0.5, "ZI": 0.5, "IZ": 0.5, "ZZ": -0.5},
    "SWAP": {"II": 0.5, "XX": 0.5, "YY": 0.5, "ZZ": 0.5},
    "Hadamard": {"X": 1 / math.sqrt(2), "Z": 1 / math.sqrt(2)},
}
"""Fixed gates as sums of Pauli words."""

PHASES = {"S": 1j, "T": complex(math.sqrt(0.5), math.sqrt(0.5))}
GENERATORS = {"RX": "X", "RY": "Y", "RZ": "Z", "IsingXX": "XX", "IsingYY": "YY", "IsingZZ": "ZZ"}


def pauli_matrix(word: str) -> np.ndarray:
    """Matrix of a Pauli word, complex128, shape (2^k, 2^k)."""
    factors = [np.array(PAULI[letter], dtype=np.complex128) for letter in word]
    return functools.reduce(np.kron, factors)


def fixed_gate_matrix(gate: Gate) -> np.ndarray:
    """Matrix of a gate without angle, complex128."""
    if gate.matrix is not None:
        return np.array(gate.matrix, dtype=np.complex128)
    if gate.name in WORDS:
        terms = [factor * pauli_matrix(word) for word, factor in WORDS[gate.name].items()]
        return np.asarray(sum(terms))
    return np.diag(np.array([1.0, PHASES[gate.name]], dtype=np.complex128))
