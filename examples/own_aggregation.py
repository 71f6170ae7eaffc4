# examples/own_aggregation.py
"""Aggregations of one's own: a function, and one that keeps something between rounds."""

import numpy as np

from llm_qfl import run


def halfway(updates, weights, reference):
    """Return the mean by rows, and of that only half the way from the global parameters."""
    mean = {k: np.average([one[k] for one in updates], axis=0, weights=weights) for k in reference}
    return {k: (reference[k] + mean[k]) / 2 for k in reference}


class Heavy:
    """The same with momentum, which a run that goes on has from its checkpoint."""

    def __init__(self, beta=0.5):
        self.beta, self.speed = beta, {}

    def __call__(self, updates, weights, reference):
        """Return where the momentum leads."""
        goal = halfway(updates, weights, reference)
        self.speed = {k: self.beta * self.speed.get(k, 0) + goal[k] - reference[k] for k in goal}
        return {k: reference[k] + self.speed[k] for k in reference}


if __name__ == "__main__":
    small = {"data.train_rows": 80, "agent": "all", "distill.weight": 0, "llm.model": "none"}
    print(run(small, rounds=2, clients=2, aggregation=Heavy, quiet=True))
