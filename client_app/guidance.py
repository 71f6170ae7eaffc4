"""What guides a site's training besides the labels: soft labels by `distill.kind`, lambda, tau."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from client_app.surrogate import Pair, choose_terms
from core import derive_seed
from core.settings.llm import is_auto

if TYPE_CHECKING:
    from client_app.site import SiteCache
    from core import DistillSettings
    from data import Projection
    from llm import Teacher
    from quantum import TrainingData

Floats = npt.NDArray[np.floating]

WEIGHTS = (0.0, 0.1, 0.3, 0.7)
"""lambda that `distill.weight = auto` chooses from."""
SMOOTHING = (0.0, 0.1, 0.2, 0.4)
"""The same for label smoothing, where lambda is its epsilon."""
TEMPERATURES = (1.0, 2.0)
"""tau that `distill.temperature = auto` chooses from."""


def soft_labels_of(
    kind: str, labels: npt.NDArray[np.int64], taught: Floats, classes: int, seed: int
) -> Floats:
    """Return the soft labels of labelled rows.

    Parameters
    ----------
    kind : str
        As `distill.kind`, other than ``none``.
    labels : ndarray of int64, shape (rows,)
        The site's labels.
    taught : ndarray, shape (rows, C)
        The local model's soft labels; only ``kl`` and ``permuted`` look at them.
    classes : int
        C.
    seed : int
        Permutes the rows of a class.

    Returns
    -------
    ndarray, shape (rows, C)
        ``permuted`` deals those of each class's rows out among the same rows, so each class keeps
        its mean soft label, and no row its own.
    """
    if kind == "smoothing":
        return np.full((len(labels), classes), 1 / classes)
    if kind == "prior":
        shares = np.bincount(labels, minlength=classes) / len(labels)
        return np.tile(shares, (len(labels), 1))
    if kind == "kl":
        return taught
    rng, dealt = np.random.default_rng(seed), np.array(taught)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        dealt[rows] = taught[rng.permutation(rows)]
    return dealt


def tilted(probabilities: Floats, class_weights: npt.ArrayLike) -> Floats:
    """Return class probabilities as the class weights have them: ``p_c w_c / sum_k p_k w_k``.

    A cross-entropy with weights w is least where the model says this of a row whose classes have
    the probabilities p. Soft labels that kept p would pull towards the frequent classes, which the
    weights are there to prevent.

    Parameters
    ----------
    probabilities : ndarray, shape (rows, C)
        The local model's, which knows no weights; no rows and no classes without one.
    class_weights : array, shape (C,)
        w, above 0.
    """
    if not probabilities.size:
        return probabilities
    shares = probabilities * np.asarray(class_weights)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def has_transfer_rows(cache: SiteCache) -> bool:
    """Whether rows without labels take part: only a teacher has something to say of them."""
    return cache.settings.distill.transfers and len(cache.labels("unlabelled")) > 0


def rows_to_train(cache: SiteCache) -> int:
    """Return how many rows a site trains on, those without labels among them."""
    more = len(cache.labels("unlabelled")) if has_transfer_rows(cache) else 0
    return len(cache.labels("train")) + more


def training_data(
    cache: SiteCache, teacher: Teacher, projection: Projection, class_weights: Sequence[float]
) -> TrainingData:
    """Put a site's rows together, with what guides them; those without labels come last.

    Parameters
    ----------
    cache : SiteCache
        The site.
    teacher : Teacher
        Its local model's predictions.
    projection : Projection
        From raw features to the quantum model's.
    class_weights : sequence of float, length C
        The federation's.
    """
    from quantum import TrainingData

    settings, labels = cache.settings, cache.labels("train")
    distill, features = settings.distill, projection.apply(cache.features("train"))
    soft: Floats | None = None
    if distill.active:
        seed = derive_seed(settings.run.seed, "permuted", cache.client)
        taught = tilted(teacher.soft_labels, class_weights)
        soft = soft_labels_of(distill.kind, labels, taught, cache.classes, seed)
    if soft is not None and has_transfer_rows(cache):
        more = tilted(teacher.extra_soft_labels, class_weights)
        if distill.kind == "permuted":
            more = np.random.default_rng(seed + 1).permutation(more)
        features = np.concatenate([features, projection.apply(cache.features("unlabelled"))])
        labels = np.concatenate([labels, cache.labels("unlabelled")])
        soft = np.concatenate([soft, more])
    hidden = teacher.hidden if distill.features > 0 else None
    return TrainingData(features, labels, soft, np.asarray(class_weights), hidden)


def with_labels(data: TrainingData) -> TrainingData:
    """Return the rows that have a label: where lambda is 0, the others teach nothing."""
    known = np.asarray(data.labels) >= 0
    soft = None if data.soft_labels is None else data.soft_labels[known]
    return replace(data, features=data.features[known], labels=data.labels[known], soft_labels=soft)


def chosen_terms(
    distill: DistillSettings, data: TrainingData, seen: Floats, labels: npt.NDArray[np.int64]
) -> Pair:
    """Return lambda of the first round and tau: the settings', or with ``auto`` the site's choice.

    Parameters
    ----------
    distill : DistillSettings
        The settings.
    data : TrainingData
        What the site trains on.
    seen, labels : ndarray, shapes (validation rows, n) and (validation rows,)
        Its validation rows.
    """
    usual = distill.usual_weight, distill.usual_temperature
    own_weight, own_tau = is_auto(distill.weight), is_auto(distill.temperature)
    if not distill.active or not (own_weight or own_tau):
        return usual
    smoothed = distill.kind == "smoothing"
    weights = (SMOOTHING if smoothed else WEIGHTS) if own_weight else usual[:1]
    taus = TEMPERATURES if own_tau and not smoothed else usual[1:]
    # Without a KL term there is no tau.
    pairs = [(w, t) for w, t in itertools.product(weights, taus) if w or t == taus[-1]]
    return choose_terms(data, seen, labels, usual, [pair for pair in pairs if pair != usual])
