"""Scores of class probabilities, and the baselines that a result is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_PROBABILITY = 1e-12


def scores(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[str, Any]:
    """Score class probabilities.

    Parameters
    ----------
    labels : array of int, shape (rows,)
        True classes; at least one row.
    probabilities : array, shape (rows, C)
        Probability of each class.

    Returns
    -------
    dict
        ``accuracy``; ``macro_f1`` and ``macro_recall``, means over all C classes with 0 for what
        is undefined; ``loss``, the mean negative log-likelihood in nats, probabilities at least
        1e-12; ``rows``; ``confusion``, C lists (true class) of C counts (predicted class).

    Raises
    ------
    ValueError
        If there is no row, or the shapes disagree.
    """
    truth = np.asarray(labels, dtype=np.int64)
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or truth.shape != (len(p),) or not len(p):
        raise ValueError(f"labels of shape {truth.shape}, probabilities of shape {p.shape}")
    classes = p.shape[1]
    confusion = np.bincount(truth * classes + p.argmax(axis=1), minlength=classes**2)
    likelihood = np.clip(p[np.arange(len(p)), truth], LEAST_PROBABILITY, 1.0)
    found = confusion_scores(confusion.reshape(classes, classes))
    return {**found, "loss": float(-np.log(likelihood).mean())}


def calibration(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> dict[str, Any]:
    """Say how often predictions of each confidence are right.

    Parameters
    ----------
    labels, probabilities
        As `scores` takes them.
    bins : int
        Bins of equal width over the confidence, the probability of the predicted class.

    Returns
    -------
    dict
        ``calibration``, a list of ``rows``, mean ``confidence`` and ``accuracy`` of each bin that
        has rows; ``calibration_error``, the expected calibration error (ECE; Guo et al., ICML
        2017): the bins' mean distance of the two, weighted by rows.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(labels)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    found = [
        {
            "rows": int((place == k).sum()),
            "confidence": float(confidence[place == k].mean()),
            "accuracy": float(right[place == k].mean()),
        }
        for k in np.unique(place)
    ]
    error = sum(one["rows"] * abs(one["confidence"] - one["accuracy"]) for one in found) / len(p)
    return {"calibration": found, "calibration_error": float(error)}


def confusion_scores(confusion: npt.ArrayLike) -> dict[str, Any]:
    """Score a confusion matrix, for instance the sum over sites of theirs.

    Parameters
    ----------
    confusion : array, shape (C, C)
        Rows by true class (first axis) and predicted class; fractions of rows where a site counts
        for fewer than it has.

    Returns
    -------
    dict
        As `scores`, without ``loss``.
    """
    table = np.asarray(confusion)
    if (table == np.rint(table)).all():
        table = table.astype(np.int64)
    hits, actual, predicted = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    return {
        "accuracy": float(hits.sum() / (table.sum() or 1)),
        "macro_f1": float(np.mean(2 * hits / _or_one(actual + predicted))),
        "macro_recall": float(np.mean(hits / _or_one(actual))),
        "rows": round(float(table.sum())),
        "confusion": table.tolist(),
    }


def _or_one(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(counts > 0, counts, 1)


def majority_baseline(
    train_y: npt.ArrayLike, test_y: npt.ArrayLike, classes: int
) -> dict[str, Any]:
    """Score the classes' shares in the training rows, the same prediction for every row.

    Returns
    -------
    dict
        As `scores`: the most frequent class is predicted, the loss is that of the shares.
    """
    counts = np.bincount(np.asarray(train_y, dtype=np.int64), minlength=classes)
    return scores(test_y, np.tile(counts / counts.sum(), (len(np.asarray(test_y)), 1)))


def linear_baseline(
    train_x: npt.ArrayLike,
    train_y: npt.ArrayLike,
    test_x: npt.ArrayLike,
    test_y: npt.ArrayLike,
    classes: int,
    seed: int,
    balanced: bool = False,
) -> dict[str, Any]:
    """Fit a logistic regression (L2, C = 1) on standardised features and score it.

    Parameters
    ----------
    train_x, test_x : array, shape (rows, d)
        Features; the mean and deviation used are those of the training rows.
    train_y, test_y : array of int, shape (rows,)
        Classes.
    classes : int
        Number of classes.
    seed : int
        Handed to the solver, which draws nothing at present.
    balanced : bool
        Whether the training rows are weighted so that every class counts alike.

    Returns
    -------
    dict
        As `scores`. Training rows of one class only give the majority baseline.
    """
    from sklearn.linear_model import LogisticRegression

    y = np.asarray(train_y, dtype=np.int64)
    if len(np.unique(y)) < 2:
        return majority_baseline(y, test_y, classes)
    x = np.asarray(train_x, dtype=np.float64)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation == 0] = 1.0
    weights = "balanced" if balanced else None
    model = LogisticRegression(max_iter=10_000, random_state=seed, class_weight=weights)
    model.fit((x - mean) / deviation, y)
    rows = (np.asarray(test_x, dtype=np.float64) - mean) / deviation
    probabilities = np.zeros((len(rows), classes))
    probabilities[:, model.classes_] = model.predict_proba(rows)
    return scores(test_y, probabilities)
