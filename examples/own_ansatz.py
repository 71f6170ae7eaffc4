# examples/own_ansatz.py
"""A circuit of one's own: a PennyLane quantum function and the shape of its weights."""

import pennylane as qml

import llm_qfl


class Brickwork:
    """Layers of RY on every qubit, and of CZ on every second pair."""

    def __init__(self, layers: int = 2) -> None:
        self.layers = layers

    def shape(self, qubits: int, classes: int) -> tuple[int, int]:
        """Return the shape of the weights."""
        return self.layers, qubits

    def circuit(self, features, weights, wires) -> None:
        """Apply the gates of one row."""
        qml.AngleEmbedding(features, wires=wires, rotation="Y")
        for layer in range(self.layers):
            for i, wire in enumerate(wires):
                qml.RY(weights[layer, i], wires=wire)
            for wire in wires[layer % 2 : -1 : 2]:
                qml.CZ(wires=[wire, wire + 1])


if __name__ == "__main__":
    print(llm_qfl.run(ansatz=Brickwork(3), rounds=2, data={"train_rows": 80}, quiet=True).accuracy)
