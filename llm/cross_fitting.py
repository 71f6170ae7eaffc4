"""Cross-fitting: each training row gets its soft label from a model that has not seen it.

A model is all but certain of the rows that it was fine-tuned on, so its soft labels of them tell
little beyond the labels. Here the rows are split into k folds and k models fine-tuned, each on the
other k - 1 folds; this is how nuisance models are fitted in double machine learning (Chernozhukov
et al., arXiv 1608.00060).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core import derive_seed
from llm import calibration
from llm.fine_tuning import Task, fine_tune
from llm.protocol import Progress, silent
from llm.teacher import Teacher

Folds = tuple[np.ndarray, ...]


def stratified_folds(labels: np.ndarray, folds: int, rng: np.random.Generator) -> Folds:
    """Split rows into folds of near equal size and class mix.

    Parameters
    ----------
    labels : np.ndarray
        Integers, (rows,).
    folds : int
        Most folds, at least 2; there are no more than rows to share out.
    rng : np.random.Generator
        Draws the rows of each.

    Returns
    -------
    tuple of np.ndarray
        Row numbers of each fold, ascending; sizes, and rows of a class, differ by one at most.
        A row that is alone of its class is in none, since without it no model would know the
        class. Empty if fewer than two folds can be made.
    """
    counts = np.bincount(labels)
    shuffled = [
        rng.permutation(np.flatnonzero(labels == label)) for label in np.flatnonzero(counts > 1)
    ]
    # Dealing on from class to class keeps the folds equal, and a class of two rows in two of them.
    rows = np.concatenate(shuffled) if shuffled else np.zeros(0, dtype=np.int64)
    dealt = min(folds, len(rows))
    return tuple(np.sort(rows[first::dealt]) for first in range(dealt))


def cross_fit(
    task: Task, folds: int, store: Path | None = None, progress: Progress = silent
) -> Teacher:
    """Fine-tune the local model once for each fold of a site's rows.

    Parameters
    ----------
    task : Task
        As in `llm.fine_tune`. Every model has all validation rows for its early stop; its seed
        draws the folds, and each model has a seed derived from it.
    folds : int
        Most folds, at least 2. Where rows do not suffice for two, one model labels its own
        training rows.
    store, progress
        As in `llm.fine_tune`; the store has each fold's model.

    Returns
    -------
    Teacher
        ``soft_logits`` are each row's from the model that has not seen it; those of a row that is
        alone of its class are all models' mean. ``temperature`` is fitted on them, since no model
        was trained or chosen by them and they are more than the validation rows. ``val_logits``
        are the logarithm of the models' mean probabilities, ``val_probabilities`` those at a
        temperature of their own, fitted on the validation rows; ``extra_logits`` likewise. Of the
        metrics ``tokens``, ``seconds`` and ``adapter_bytes`` are sums over the models, ``epochs``
        and ``best_epoch`` the most of any; ``reused`` means all of them. Without validation rows
        the others are those of the training rows. ``folder`` is None: there is no single one.

    Raises
    ------
    core.DataError, core.ModelError
        As in `llm.fine_tune`.
    """
    labels = task.train_labels
    parts = stratified_folds(labels, folds, np.random.default_rng(derive_seed(task.seed, "folds")))
    if len(parts) < folds:
        used = f"{len(parts)} folds" if parts else "one model labels its own rows"
        progress(f"{len(labels)} training rows do not make {folds} folds: {used}")
    if not parts:
        return fine_tune(task, store, progress)
    members, soft = _members(task, parts, store, progress)
    return _teacher(task, members, soft, np.concatenate(parts))


def _members(
    task: Task, parts: Folds, store: Path | None, progress: Progress
) -> tuple[list[Teacher], np.ndarray]:
    """Return each fold's teacher, and the logits (rows, C) of those that had not seen the row."""
    everything = np.arange(len(task.train_labels))
    alone = np.setdiff1d(everything, np.concatenate(parts))
    members: list[Teacher] = []
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for number, part in enumerate(parts, 1):
        progress(f"fold {number} of {len(parts)}")
        others = np.setdiff1d(everything, part)
        fold = replace(
            task,
            train_texts=[task.train_texts[row] for row in others],
            train_labels=task.train_labels[others],
            seed=derive_seed(task.seed, "fold", number),
            extra_texts=[*(task.train_texts[row] for row in part), *task.extra_texts],
        )
        member = fine_tune(fold, store, progress)
        members.append(member)
        found.append(
            (member.extra_logits[: len(part)], member.soft_logits[np.searchsorted(others, alone)])
        )
    soft = np.empty((len(everything), found[0][0].shape[1]), dtype=np.float32)
    soft[np.concatenate(parts)] = np.concatenate([unseen for unseen, _ in found])
    soft[alone] = np.mean([seen for _, seen in found], axis=0)
    return members, soft


def _teacher(
    task: Task, members: Sequence[Teacher], soft: np.ndarray, unseen: np.ndarray
) -> Teacher:
    """Make one teacher of the folds' teachers; `unseen` are the rows with a held-out logit."""
    val_logits = _mean_logits([member.val_logits for member in members])
    more = len(task.extra_texts)
    extra = _mean_logits([one.extra_logits[len(one.extra_logits) - more :] for one in members])
    labels, val_labels, temperature, of_mean = task.train_labels, task.val_labels, 1.0, 1.0
    if task.calibrate:
        temperature = calibration.soft_temperature(soft[unseen], labels[unseen])
    if task.calibrate and len(val_labels):
        of_mean = calibration.soft_temperature(val_logits, val_labels)
    of_rows = (val_logits, val_labels, of_mean) if len(val_labels) else (soft, labels, temperature)
    each = [member.metrics for member in members]
    metrics: dict[str, Any] = {
        **calibration.figures(*of_rows),
        "validation_rows": len(val_labels),
        **{name: max(one[name] for one in each) for name in ("epochs", "best_epoch")},
        **{name: each[0][name] for name in ("trainable", "peft")},
        **{name: sum(one[name] for one in each) for name in ("tokens", "seconds", "adapter_bytes")},
        "reused": all(one["reused"] for one in each),
        # Each row is a training row of all members but one.
        "cut": round(sum(one["cut"] for one in each) / max(len(each) - 1, 1)),
    }
    return Teacher(
        soft_logits=soft,
        val_logits=val_logits,
        temperature=temperature,
        soft_labels=calibration.softmax(soft, temperature).astype(np.float32),
        val_probabilities=calibration.softmax(val_logits, of_mean).astype(np.float32),
        metrics=metrics,
        extra_logits=extra,
        extra_soft_labels=calibration.softmax(extra, of_mean).astype(np.float32),
    )


def _mean_logits(each: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of several models' mean probabilities, (rows, C)."""
    mean = np.mean([calibration.softmax(logits) for logits in each], axis=0)
    logits = np.log(np.maximum(mean, calibration.LEAST_PROBABILITY))
    return np.asarray(logits, dtype=np.float32)
