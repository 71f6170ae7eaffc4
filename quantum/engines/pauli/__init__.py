"""The exact engine of small circuits: compiled rotations of Pauli coefficients, no state vector."""

from quantum.engines.pauli.engine import EncodedWords, PauliEngine
from quantum.engines.pauli.rotation_plan import can_run
