"""The exact engine of small circuits: compiled turns of Pauli coefficients, no state vector."""

from quantum.engines.pauli.engine import EncodedWords, PauliEngine
from quantum.engines.pauli.program import can_run
