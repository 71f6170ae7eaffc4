"""Cross-fitting: each training row gets its soft label from a model that has not seen it.

A model is all but certain of the rows that it was fine-tuned on, so its soft labels of them say
little beyond the labels. Here the rows are split into k folds and k models fine-tuned, each on the
other k - 1 folds; this is how nuisance models are fitted in double machine learning (Chernozhukov
et al., arXiv 1608.00060).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import LlmSettings, derive_seed
from llm import calibration
from llm.fine_tuning import fine_tune
from llm.sources import Kind
from llm.tasks import checked_labels
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
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    val_texts: Sequence[str],
    val_labels: np.ndarray,
    classes: int,
    settings: LlmSettings,
    kind: Kind,
    seed: int,
    folds: int,
    calibrate: bool = True,
    store: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Teacher:
    """Fine-tune the local model once for each fold of a site's rows.

    The parameters are those of `llm.fine_tune`, and `folds`.

    Parameters
    ----------
    train_texts, train_labels, val_texts, val_labels, classes, settings, kind
        As there; every model has all validation rows for its early stop.
    seed : int
        Draws the folds; each model has a seed derived from it.
    calibrate, store, progress
        As there; the store keeps each fold's model.
    folds : int
        Most folds, at least 2. Where rows do not suffice for two, one model labels its own
        training rows.

    Returns
    -------
    Teacher
        ``soft_logits`` are each row's from the model that has not seen it; those of a row that is
        alone of its class are all models' mean. ``temperature`` is fitted on them, since no model
        was trained or chosen by them and they are more than the validation rows. ``val_logits``
        are the logarithm of the models' mean probabilities, ``val_probabilities`` those at a
        temperature of their own, fitted on the validation rows. Of the metrics ``tokens``,
        ``seconds`` and ``adapter_bytes`` are sums over the models, ``epochs`` and ``best_epoch``
        the most of any; ``reused`` means all of them. Without validation rows the others are
        those of the training rows. The folders are the store's own business: ``folder`` is None.

    Raises
    ------
    core.DataError, core.ModelError
        As in `llm.fine_tune`.
    """
    labels = checked_labels(train_texts, train_labels, classes)
    model = functools.partial(
        fine_tune,
        val_texts=val_texts,
        val_labels=val_labels,
        classes=classes,
        settings=settings,
        kind=kind,
        calibrate=calibrate,
        store=store,
        progress=progress,
    )
    parts = stratified_folds(labels, folds, np.random.default_rng(derive_seed(seed, "folds")))
    if len(parts) < folds:
        used = f"{len(parts)} folds" if parts else "one model labels its own rows"
        progress(f"{len(labels)} training rows do not make {folds} folds: {used}")
    if not parts:
        return model(train_texts, labels, seed=seed)
    members, soft = _members(model, train_texts, labels, parts, seed, progress)
    held = np.concatenate(parts)
    fit = functools.partial(calibration.fit_temperature, spread=calibration.SPREAD)
    temperature = fit(soft[held], labels[held]) if calibrate else 1.0
    judged = checked_labels(val_texts, val_labels, classes)
    return _teacher(members, soft, labels, temperature, judged, calibrate)


def _members(
    model: Callable[..., Teacher],
    texts: Sequence[str],
    labels: np.ndarray,
    parts: Folds,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[list[Teacher], np.ndarray]:
    """Return each fold's teacher, and the logits (rows, C) of those that had not seen the row."""
    everything = np.arange(len(labels))
    alone = np.setdiff1d(everything, np.concatenate(parts))
    members: list[Teacher] = []
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for number, part in enumerate(parts, 1):
        progress(f"fold {number} of {len(parts)}")
        kept = np.setdiff1d(everything, part)
        member = model(
            [texts[row] for row in kept],
            labels[kept],
            seed=derive_seed(seed, "fold", number),
            asked_texts=[texts[row] for row in part],
        )
        members.append(member)
        found.append((member.asked_logits, member.soft_logits[np.searchsorted(kept, alone)]))
    soft = np.empty((len(labels), found[0][0].shape[1]), dtype=np.float32)
    soft[np.concatenate(parts)] = np.concatenate([unseen for unseen, _ in found])
    soft[alone] = np.mean([seen for _, seen in found], axis=0)
    return members, soft


def _teacher(
    members: Sequence[Teacher],
    soft: np.ndarray,
    labels: np.ndarray,
    temperature: float,
    val_labels: np.ndarray,
    calibrate: bool,
) -> Teacher:
    """Make one teacher of the folds' teachers."""
    mean = np.mean([calibration.softmax(member.val_logits) for member in members], axis=0)
    val_logits = np.log(np.maximum(mean, calibration.LEAST_PROBABILITY)).astype(np.float32)
    held_out = bool(len(val_labels))
    of_mean = 1.0
    if calibrate and held_out:
        of_mean = calibration.fit_temperature(val_logits, val_labels, spread=calibration.SPREAD)
    said = [member.metrics for member in members]
    metrics: dict[str, Any] = {
        **calibration.figures(
            val_logits if held_out else soft,
            val_labels if held_out else labels,
            of_mean if held_out else temperature,
        ),
        "validation_rows": len(val_labels),
        **{name: max(each[name] for each in said) for name in ("epochs", "best_epoch")},
        **{name: said[0][name] for name in ("trainable", "peft")},
        **{name: sum(each[name] for each in said) for name in ("tokens", "seconds")},
        "adapter_bytes": sum(each["adapter_bytes"] for each in said),
        "reused": all(each["reused"] for each in said),
        # Each row is a training row of all members but one.
        "cut": round(sum(each["cut"] for each in said) / max(len(said) - 1, 1)),
    }
    return Teacher(
        soft_logits=soft,
        val_logits=val_logits,
        temperature=temperature,
        soft_labels=calibration.softmax(soft, temperature).astype(np.float32),
        val_probabilities=calibration.softmax(val_logits, of_mean).astype(np.float32),
        metrics=metrics,
    )
