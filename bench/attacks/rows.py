"""Inversion: what a site's rows were, from its update of one step or from its moments.

``python -m bench.attacks.rows [--seeds 0 1 2 3 4] [--rows 1 2 4]``: the attacker knows circuit,
parameters, projection, number of rows and their labels.

*From an update* (Zhu et al., Deep Leakage from Gradients, NeurIPS 2019): it looks for angles whose
gradient is the one that it saw, by least squares from several starts. A row counts as recovered if
every angle is within 0.1 rad of a guess's. Of groups the attacker sees the mean gradient of the
sites' rows and looks for all of them. One step of Adam from rest moves each parameter by the
learning rate, whatever the gradient: it tells the signs alone.

*From moments*: a guess at a row is its class's mean at the site; with as many rows of each of two
classes. Beside it how much nearer that is than the mean of public rows: 1 says the row itself, 0 no
more than the public knows. Means over rows, then mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import least_squares, linear_sum_assignment
from torch.nn.functional import cross_entropy

from bench.attacks.seen import Floats, Seen, watch
from bench.tables import head, mean_spread, row
from core import derive_seed
from data import Split, clip_rows, moments_of, noisy_moments
from quantum import Classifier

STARTS, LOOKS = 3, 40
"""Starts of a search, and evaluations of the Jacobian of each."""

NEAR = 0.1
"""Radians within which an angle counts as recovered."""

SOFT = 1e-4
"""Where a sign is searched for: a gradient of this size counts as half."""

Distort = Callable[[Floats, np.random.Generator], Floats]


def _signs(gradient: Floats, rng: np.random.Generator) -> Floats:
    return gradient / (np.abs(gradient) + SOFT)


def _nothing(gradient: Floats, rng: np.random.Generator) -> Floats:
    return np.zeros_like(gradient)


def _noisy(deviation: float) -> Distort:
    """Noise as of `privacy.dp = local` on an update of the norm that it is clipped to."""

    def distort(gradient: Floats, rng: np.random.Generator) -> Floats:
        norm = float(np.linalg.norm(gradient))
        return gradient + norm * deviation * rng.normal(size=gradient.shape)

    return distort


CASES: tuple[tuple[str, int, Distort | None], ...] = (
    ("not seen: public class means", 1, _nothing),
    ("none: the gradient", 1, None),
    ("one step of Adam (default)", 1, _signs),
    ("groups of 3: their mean gradient", 3, None),
    ("local, z = 0.01", 1, _noisy(0.01)),
    ("local, z = 1", 1, _noisy(1.0)),
)


class Gradients:
    """Mean gradient of rows as a function of their angles.

    Parameters
    ----------
    classifier : Classifier
        The circuit, in double precision.
    flat : ndarray, shape (D,)
        The parameters that went out.
    labels : ndarray, shape (rows,)
        Of the rows.
    """

    def __init__(self, classifier: Classifier, flat: Floats, labels: npt.ArrayLike) -> None:
        self._classifier, self._flat = classifier, torch.as_tensor(flat)
        self._labels = torch.as_tensor(np.asarray(labels, dtype=np.int64))

    def __call__(self, angles: Floats) -> Floats:
        """Return the gradient (D,) of angles (rows, n)."""
        theta = self._flat.to(self._classifier.engine.dtype).requires_grad_(True)
        encoded = self._classifier.prepare(angles)
        logits = self._classifier.logits_tensor(theta, encoded)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, self._labels), theta)
        return np.asarray(gradient.double().numpy(), np.float64)


def invert(
    gradients: Gradients, target: Floats, like: Floats, rng: np.random.Generator, signs: bool
) -> Floats:
    """Return the angles whose gradient is nearest to a target.

    Parameters
    ----------
    gradients : Gradients
        Of the rows that are looked for.
    target : ndarray, shape (D,)
        What was seen.
    like : ndarray, shape (rows, n)
        Angles of public rows with the same labels: where the first search starts.
    rng : numpy.random.Generator
        Draws the other starts.
    signs : bool
        Whether the target is a gradient's signs.
    """
    shape, bound = like.shape, np.pi / 2

    def miss(flat: Floats) -> Floats:
        found = gradients(flat.reshape(shape))
        return (_signs(found, rng) if signs else found) - target

    best, least = like, np.inf
    for start in range(STARTS):
        first = like if start == 0 else rng.uniform(-bound, bound, shape)
        inside = np.clip(first.ravel(), -bound + 1e-3, bound - 1e-3)
        limits = (-bound - 1e-6, bound + 1e-6)
        result = least_squares(miss, inside, bounds=limits, max_nfev=LOOKS, diff_step=1e-5)
        if result.cost < least:
            best, least = result.x.reshape(shape), result.cost
        if least < 1e-14:
            break
    return np.asarray(best)


def nearest(rows: Floats, guesses: Floats) -> Floats:
    """Return the largest angle error of each row to its own guess, radians, (rows,)."""
    apart = np.abs(rows[:, None] - guesses[None]).max(axis=2)
    return np.asarray(apart[linear_sum_assignment(apart)])


def from_update(seen: Seen, count: int, sites: int, distort: Distort | None, seed: int) -> Floats:
    """Invert the update of one step of sites with `count` rows each; return errors, (rows,)."""
    rng = np.random.default_rng(derive_seed(seed, "inversion", count, sites))
    public, test = seen.server()
    rows = test.take(rng.choice(len(test), count * sites, replace=False))
    parameters = seen.rounds[1].sent
    classifier = seen.classifier(precision="double")
    gradients = Gradients(classifier, classifier.flatten(parameters), rows.labels)
    angles = np.asarray(seen.angles(rows), np.float64)
    target = gradients(angles)
    target = target if distort is None else distort(target, rng)
    means = _class_means(np.asarray(seen.angles(public), np.float64), public)
    guess = means[np.asarray(rows.labels)] + 0.01 * rng.normal(size=angles.shape)
    found = (
        guess if distort is _nothing else invert(gradients, target, guess, rng, distort is _signs)
    )
    return nearest(angles, found)[:count]


def _class_means(x: Floats, rows: Split) -> Floats:
    labels = np.asarray(rows.labels)
    return np.stack([x[labels == c].mean(axis=0) for c in range(2)])


def update_table(counts: Sequence[int], seeds: Sequence[int]) -> None:
    """Print how many rows an update of one step gives away."""
    runs = [watch(f"run.seed={seed}", "run.rounds=1") for seed in seeds]
    print(head(("update of one step", *(f"{n} rows: recovered, %" for n in counts))))
    for name, sites, distort in CASES:
        cells = []
        for count in counts:
            shares = [
                100 * float(np.mean(from_update(seen, count, sites, distort, seed) < NEAR))
                for seen, seed in zip(runs, seeds, strict=True)
            ]
            cells.append(mean_spread(shares, 0))
        print(row((name, *cells)), flush=True)


# --- moments --------------------------------------------------------------------------------------

MOMENTS: tuple[tuple[str, float, int], ...] = (
    ("none, privacy.min_rows = 0", 0.0, 0),
    ("privacy.min_rows = 5 (default)", 0.0, 5),
    ("min_rows = 0, moment_noise z = 1", 1.0, 0),
    ("min_rows = 0, moment_noise z = 4", 4.0, 0),
)
LONGEST = 0.2
"""`privacy.moment_clip` of the noisy moments."""

SITES = 40
"""Sites, made of public rows, over which a cell's mean is taken."""


def from_moments(seen: Seen, count: int, noise: float, least: int, seed: int) -> float:
    """Return how much nearer than the public a site's class mean is to its rows."""
    if count < least:
        return 0.0
    rng = np.random.default_rng(derive_seed(seed, "moments", count))
    public, test = seen.server()
    means = _class_means(seen.features(public), public)
    features, labels = seen.features(test), np.asarray(test.labels)
    gains = []
    for _ in range(SITES):
        chosen = [rng.choice(np.flatnonzero(labels == c), count, replace=False) for c in range(2)]
        rows = np.concatenate(chosen)
        x = clip_rows(features[rows], LONGEST) if noise else features[rows]
        moments = moments_of(x, labels[rows], 2)
        if noise:
            moments = noisy_moments(moments, noise, LONGEST, rng)
        guess = moments.sums / moments.count[:, None]
        for c in range(2):
            own = features[chosen[c]]
            missed = np.linalg.norm(own - guess[c], axis=1)
            gains.append(np.mean(1 - missed / np.linalg.norm(own - means[c], axis=1)))
    return float(max(np.mean(gains), 0.0))


def moments_table(counts: Sequence[int], seeds: Sequence[int]) -> None:
    """Print how near the moments of few rows are to the rows."""
    runs = [watch(f"run.seed={seed}", "run.rounds=1") for seed in seeds]
    print("\n" + head(("moments", *(f"{n} rows of a class" for n in counts))))
    for name, noise, least in MOMENTS:
        cells = []
        for count in counts:
            found = [
                from_moments(seen, count, noise, least, seed)
                for seen, seed in zip(runs, seeds, strict=True)
            ]
            cells.append(mean_spread(found, 2))
        print(row((name, *cells)), flush=True)


def main(words: Sequence[str]) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="bench.attacks.rows", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4])
    chosen = parser.parse_args(words)
    logging.disable(logging.WARNING)
    update_table(chosen.rows, chosen.seeds)
    moments_table([*chosen.rows, 5, 20], chosen.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
