# examples/take_home.py
"""A trained model, taken home: predict, save, load, run its circuit elsewhere, describe it."""

import numpy as np
import pennylane as qml

import llm_qfl

FEW = {"rounds": 2, "clients": 2, "train": {"steps": 5}, "distill": {"weight": 0}, "agent": "all"}

if __name__ == "__main__":
    rows = {"source": "dna-demo", "train_rows": 200, "test_rows": 60, "server_rows": 40}
    model = llm_qfl.run(data=rows, quiet=True, **FEW).model

    new = ["ACGTTGCAAT" * 20, "TTTTAAAACC" * 20]
    print(model.classes_, model.predict(new), model.predict_proba(new).round(2))

    folder = model.save("my-model")  # safetensors and JSON; no training data, no code
    again = llm_qfl.load(folder, {"quantum.backend": "aer"})  # with shots
    print(again.predict(new))

    device = qml.device("default.qubit", wires=4)
    circuit = qml.QNode(model.circuit("pennylane"), device)
    z = np.stack(circuit(model.angles(new)), axis=1)  # expectations, (rows, K)
    print(z @ model.parameters["weights"].T + model.parameters["bias"])  # logits, (rows, C)
    print(model.circuit("qasm3").splitlines()[0])
    print(model.card().splitlines()[5])
