"""What a process that waits for a message may do before it comes."""

from __future__ import annotations

import numpy as np

from core import parse_settings


def preload() -> None:
    """Train one step on two made-up rows: all that a message imports and first calls is there.

    On the CPU: a process that waits holds no memory of a GPU.
    """
    import torch

    from data import Projection, scores  # noqa: F401 - imported, not used
    from llm import Teacher  # noqa: F401
    from quantum import TrainingData, build_classifier, evaluate, train_local

    settings = parse_settings({"quantum.device": "cpu"})
    torch.set_num_threads(settings.quantum.threads)
    classifier = build_classifier(settings.quantum, 2)
    rows = TrainingData(
        features=np.zeros((2, settings.quantum.width), np.float32),
        labels=np.array([0, 1]),
        soft_labels=np.full((2, 2), 0.5),
        class_weights=np.ones(2),
    )
    start = classifier.initial(seed=0)
    train_local(classifier, start, rows, settings.train, settings.distill.in_round(1), steps=1)
    evaluate(classifier, start, rows.features)
