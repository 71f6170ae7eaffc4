# examples/features.py
"""Aligned sequences in which one place tells the classes: `auto` finds that by linear probes."""

import random
from pathlib import Path
from types import SimpleNamespace

import llm_qfl

random.seed(0)
lines = ["text,label"]
for row in range(400):
    letters = random.choices("ACGT", k=12)
    letters[4] = random.choice("AG" if row % 2 else "CT")
    lines.append(f"{''.join(letters)},{'purine' if row % 2 else 'pyrimidine'}")
Path("aligned.csv").write_text("\n".join(lines) + "\n")


def show(prepared):
    """Print what the run sees of a row, and why."""
    print(prepared["features"], "because of", prepared["feature_choice"].split("; shrinkage")[0])


settings = {"data.source": "csv", "data.kind": "dna", "data.path": "aligned.csv"}
settings |= {"distill.weight": 0.0, "agent.kind": "all"}  # no teacher: the features are the topic
for kind in ("auto", "kmer"):
    chosen, watch = settings | {"features.kind": kind}, SimpleNamespace(on_prepared=show)
    result = llm_qfl.run(chosen, rounds=2, clients=2, quiet=True, callbacks=watch)
    print(kind, result.accuracy)
