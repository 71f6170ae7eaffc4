"""Membership inference: whether a row was among a site's training rows.

``python -m bench.attacks.members [--seeds 0 1 2 3 4] [--rows 1200 240]``: ten sites of the
synthetic demo share so many rows. The attacker is the server. It holds public rows of the same
kind, knows the candidate rows with their labels, and scores each: the site's training rows against
rows of no site. AUC 0.5 is guessing; beside it the share of members that it finds where it accuses
one in a hundred others (TPR at 1 % FPR, guessing: 0.01). Means over sites, then mean and standard
deviation over seeds.

Scores of a row from updates, summed over the rounds: by how much the update lowers its loss (Yeom
et al., CSF 2018), and the cosine of the update with the row's own step (-gradient; Nasr et al., S&P
2019); the better of both is printed with its name. From moments: the row's part along the site's
class mean, whitened by the public rows' covariance (Dwork et al., FOCS 2015). Of secure aggregation
the attacker sees the mean of a group that the site is in.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy

from bench.attacks.seen import Floats, Seen, watch
from bench.tables import head, mean_spread, row
from core.messages import Parameters
from data import Split, clip_rows, moments_of, noisy_moments
from quantum import Classifier

SITES = 10
FALSE_POSITIVES = 0.01
OTHERS = 500
"""Rows of no site that stand beside a site's own."""

SCORES = ("loss drop", "cosine")

View = Callable[[int], Sequence[int]]
"""Of a site: the sites whose mean update the attacker sees."""

VIEWS: dict[str, View] = {
    "each update": lambda site: [site],
    "groups of 3": lambda site: [(site + k) % SITES for k in range(3)],
    "one sum of 10": lambda site: range(SITES),
}

MOMENT_VIEWS = ("each site's", "one sum of 10")


@dataclass(frozen=True)
class Found:
    """What an attack finds: AUC, and the true positive rate at `FALSE_POSITIVES`."""

    auc: float
    tpr: float


def found(members: Floats, others: Floats) -> Found:
    """Return how well scores tell members from others; higher scores accuse."""
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    auc = float(roc_auc_score(truth, np.concatenate([members, others])))
    limit = np.quantile(others, 1 - FALSE_POSITIVES, method="higher")
    return Found(auc, float(np.mean(members > limit)))


class Rows:
    """Candidate rows before a run's circuit: their losses and gradients.

    Parameters
    ----------
    seen : Seen
        The run.
    rows : Split
        The candidates.
    """

    def __init__(self, seen: Seen, rows: Split) -> None:
        self.classifier = seen.classifier()
        angles = seen.angles(rows)
        self.encoded = self.classifier.prepare(angles)
        self.single = [self.classifier.prepare(angles[k : k + 1]) for k in range(len(angles))]
        self.labels = torch.as_tensor(np.asarray(rows.labels))

    def losses(self, parameters: Parameters) -> Floats:
        """Return the loss of each row, nats, (rows,)."""
        logits = torch.as_tensor(self.classifier.logits(parameters, self.encoded))
        return np.asarray(cross_entropy(logits, self.labels, reduction="none"), np.float64)

    def steps(self, parameters: Parameters) -> Floats:
        """Return minus the gradient of each row's loss, each of norm 1, (rows, D)."""
        flat = torch.as_tensor(self.classifier.flatten(parameters))
        made = []
        for encoded, label in zip(self.single, self.labels, strict=True):
            theta = flat.to(self.classifier.engine.dtype).requires_grad_(True)
            logits = self.classifier.logits_tensor(theta, encoded)
            (gradient,) = torch.autograd.grad(cross_entropy(logits, label[None]), theta)
            made.append(-gradient.double().numpy())
        steps = np.stack(made)
        return np.asarray(steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-12))


def mean_update(updates: Sequence[Parameters]) -> Parameters:
    """Return the mean of parameters, which is what their sum tells."""
    return {name: np.mean([one[name] for one in updates], axis=0) for name in updates[0]}


def from_updates(seen: Seen) -> dict[tuple[str, str], list[Found]]:
    """Attack every site by what each view shows; return the findings by view and score."""
    _, test = seen.server()
    sites = [seen.site(client) for client in range(SITES)]
    outside = Rows(seen, test.take(range(min(len(test), OTHERS))))
    inside = [Rows(seen, rows) for rows in sites]
    keys = [(view, score) for view in VIEWS for score in SCORES]
    sums = {key: [[np.zeros(len(x)), np.zeros(OTHERS)] for x in sites] for key in keys}
    for one in seen.rounds.values():
        before = outside.losses(one.sent), outside.steps(one.sent)
        for client, rows in enumerate(inside):
            own = rows.losses(one.sent), rows.steps(one.sent)
            for view, shown in VIEWS.items():
                if not (known := [one.updates[k] for k in shown(client) if k in one.updates]):
                    continue
                update = mean_update(known)
                moved = _direction(outside.classifier, update, one.sent)
                for place, (who, then) in enumerate(((rows, own), (outside, before))):
                    sums[view, "loss drop"][client][place] += then[0] - who.losses(update)
                    sums[view, "cosine"][client][place] += then[1] @ moved
    return {key: [found(*pair) for pair in pairs] for key, pairs in sums.items()}


def _direction(classifier: Classifier, update: Parameters, sent: Parameters) -> Floats:
    moved = classifier.flatten(update) - classifier.flatten(sent)
    return np.asarray(moved / max(float(np.linalg.norm(moved)), 1e-12))


def from_moments(seen: Seen, noise: float, bound: float, seed: int) -> dict[str, list[Found]]:
    """Attack every site by class sums, with noise of a multiplier or none.

    Returns
    -------
    dict
        The findings by what the server sees: each site's own moments, or the sum of all.
    """
    public, test = seen.server()
    rng = np.random.default_rng(seed)

    def features(rows: Split) -> Floats:
        return clip_rows(seen.features(rows), bound) if noise else seen.features(rows)

    known, outside = features(public), features(test)
    means = np.stack([known[public.labels == c].mean(axis=0) for c in range(2)])
    apart = known - means[public.labels]
    within = apart.T @ apart / len(known)
    ridge = 0.01 * np.trace(within) / len(within)
    whiten = np.linalg.inv(within + ridge * np.eye(len(within)))
    sites = [seen.site(client) for client in range(SITES)]
    inside = [features(rows) for rows in sites]
    moments = [moments_of(x, rows.labels, 2) for x, rows in zip(inside, sites, strict=True)]
    if noise:
        moments = [noisy_moments(one, noise, bound, rng) for one in moments]
    total = sum(one.sums for one in moments), sum(one.count for one in moments)
    every: dict[str, list[Found]] = {view: [] for view in MOMENT_VIEWS}
    for x, rows, own in zip(inside, sites, moments, strict=True):
        for view, (sums, count) in zip(MOMENT_VIEWS, ((own.sums, own.count), total), strict=True):
            shift = sums / np.maximum(count, 1)[:, None] - means
            scores = (
                _along(*pair, means, whiten, shift)
                for pair in ((x, rows.labels), (outside, test.labels))
            )
            every[view].append(found(*scores))
    return every


def _along(
    x: Floats, labels: npt.ArrayLike, means: Floats, whiten: Floats, shift: Floats
) -> Floats:
    """Return each row's part along its class's shift, (rows,)."""
    of = np.asarray(labels, dtype=np.intp)
    return np.asarray(np.einsum("rd,de,re->r", x - means[of], whiten, shift[of]))


# --- the tables -----------------------------------------------------------------------------------

BY_ROWS = (
    *("privacy.dp=local", "privacy.unit=row", "privacy.clip=3", "train.optimizer=descent"),
    *("train.schedule=constant", "train.steps=10", "train.batch_rows=0", "llm.model=none"),
)
UPDATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("none", ()),
    ("clip 0.1, no noise", ("privacy.dp=local", "privacy.clip=0.1", "privacy.noise=1e-6")),
    ("local, clip 1, z = 0.1", ("privacy.dp=local", "privacy.noise=0.1")),
    ("local, clip 1, z = 1", ("privacy.dp=local", "privacy.noise=1")),
    ("rows, clip 3, z = 1", (*BY_ROWS, "privacy.noise=1")),
    ("rows, clip 3, z = 4", (*BY_ROWS, "privacy.noise=4")),
)
MOMENTS: tuple[tuple[str, float], ...] = (("none", 0.0), ("z = 1", 1), ("z = 4", 4), ("z = 16", 16))
LONGEST = 0.2
"""`privacy.moment_clip` of the noisy moments: above the norm of 99 % of the demo's rows."""


def averaged(findings: Sequence[Found]) -> Found:
    """Return the mean over sites."""
    return Found(
        float(np.mean([one.auc for one in findings])), float(np.mean([one.tpr for one in findings]))
    )


def _cells(by_seed: Sequence[Found]) -> tuple[str, str]:
    return (
        mean_spread([one.auc for one in by_seed], 3),
        mean_spread([one.tpr for one in by_seed], 3),
    )


def updates_table(rows: int, seeds: Sequence[int]) -> None:
    """Print what updates give away, by protection and view."""
    for name, given in UPDATES:
        runs = [watch(f"run.seed={s}", f"data.train_rows={rows}", *given) for s in seeds]
        accuracy = mean_spread([100 * seen.accuracy for seen in runs], 1)
        attacked = [from_updates(seen) for seen in runs]
        for view in VIEWS:
            results = {kind: [averaged(one[view, kind]) for one in attacked] for kind in SCORES}
            best = max(SCORES, key=lambda kind: float(np.mean([one.auc for one in results[kind]])))
            print(row((str(rows), name, view, best, *_cells(results[best]), accuracy)), flush=True)


def moments_table(rows: int, seeds: Sequence[int]) -> None:
    """Print what moments give away, by their noise."""
    for name, noise in MOMENTS:
        given = (f"privacy.moment_noise={noise}", f"privacy.moment_clip={LONGEST}") if noise else ()
        runs = [watch(f"run.seed={s}", f"data.train_rows={rows}", *given) for s in seeds]
        accuracy = mean_spread([100 * seen.accuracy for seen in runs], 1)
        pairs = zip(runs, seeds, strict=True)
        attacked = [from_moments(seen, noise, LONGEST, seed) for seen, seed in pairs]
        for view in MOMENT_VIEWS:
            cells = _cells([averaged(one[view]) for one in attacked])
            print(row((str(rows), name, view, *cells, accuracy)), flush=True)


def main(words: Sequence[str]) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="bench.attacks.members", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", type=int, default=[1200, 240])
    chosen = parser.parse_args(words)
    logging.disable(logging.WARNING)
    figures = ("AUC", "TPR at 1 % FPR", "test accuracy, %")
    print(head(("rows", "updates", "the server sees", "score", *figures)))
    for rows in chosen.rows:
        updates_table(rows, chosen.seeds)
    print("\n" + head(("rows", "noise on moments", "the server sees", *figures)))
    for rows in chosen.rows:
        moments_table(rows, chosen.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
