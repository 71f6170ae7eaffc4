"""FedAvg: the mean of the updates, weighted by the sites' rows."""

from __future__ import annotations

from strategies.updates import Arrays, Parameters, Updates, Weights


def weighted(updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
    """Return the mean, weighted by rows (McMahan et al. 2017)."""
    shares = (weights / weights.sum()).tolist()
    return {
        name: sum(share * one[name] for share, one in zip(shares, updates, strict=True))
        for name in updates[0]
    }


class Weighted:
    """The mean by rows: of groups' means by their weights it is that of all updates."""

    of_mean = True
    coordinatewise = True

    def __call__(self, updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
        """Return the mean of the updates."""
        return weighted(updates, weights, reference)


AGGREGATION = Weighted
