"""The ansaetze: shapes, gate lists, PennyLane templates and drawings."""

from quantum.ansatz.circuits import QCNN, VQC, Ansatz, build_ansatz
