"""What a client does in a round: plain functions of its cache and the instruction."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client_app.device_weight import device_weight
from client_app.guidance import chosen_terms, training_data, with_labels
from client_app.outgoing import Outgoing, outgoing
from client_app.privacy_account import charge_update
from client_app.private_rows import group_threshold, row_privacy
from client_app.site import SiteCache
from core import TrainSettings, derive_seed, local_optimizer
from core.messages import EvaluateIns, EvaluateReport, Parameters, TrainIns, TrainReport

if TYPE_CHECKING:
    from data import Projection
    from llm import Teacher
    from quantum import CircuitCost, TrainResult, TrainTask


@dataclass(frozen=True)
class Begun:
    """A client's round of training, ready for its optimiser steps.

    Attributes
    ----------
    task : TrainTask
        What is to be trained, on which rows.
    seen : ndarray, shape (validation rows, n)
        The validation rows' projected features.
    teacher : Teacher
        The site's.
    llm_tokens, llm_seconds : int and float
        What fine-tuning it took in this round.
    seconds : float
        Time it took to open the backend.
    """

    task: TrainTask
    seen: npt.NDArray[np.float32]
    teacher: Teacher
    llm_tokens: int
    llm_seconds: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What training gave, or what went wrong; and the client's share of the seconds it took."""

    result: TrainResult | Exception
    seconds: float


def begin_training(cache: SiteCache, parameters: Parameters, instruction: TrainIns) -> Begun:
    """Get a client ready to train: its rows, their features, the teacher and the backend.

    Parameters
    ----------
    cache : SiteCache
        The site.
    parameters : dict of arrays
        The global angles (P,), scale and bias (R,).
    instruction : TrainIns
        Round, steps, class weights and projection.
    """
    import torch

    from data import Projection
    from quantum import TrainTask, first_layers, load_compiled

    charge_update(cache, instruction.steps)
    projection, number = Projection.from_bytes(instruction.projection), instruction.round
    cache.take_projection(projection)
    settings = cache.settings
    torch.set_num_threads(settings.quantum.threads)
    was_fresh = not cache.has_teacher
    teacher, llm_seconds = cache.teacher()
    seen = projection.apply(cache.features("validation"))
    rows = training_data(cache, teacher, projection, instruction.class_weights)
    labels = cache.labels("validation")
    terms = cache.terms_from(lambda: chosen_terms(settings.distill, rows, seen, labels))
    if not terms[0]:
        rows = with_labels(rows)
    # Loading rows, features and compiled functions again in a new process is no training.
    began = time.monotonic()
    classifier = cache.classifier_in(number)
    task = TrainTask(
        classifier=classifier,
        parameters=first_layers(parameters, classifier.angles),
        data=rows,
        train=_in_round(settings.train, instruction, classifier.engine.name),
        distill=settings.distill.in_round(number, *terms),
        steps=instruction.steps,
        step_offset=instruction.step_offset,
        seed=derive_seed(settings.run.seed, "train", cache.client, number),
        privacy=row_privacy(settings, cache.client, instruction),
    )
    seconds = time.monotonic() - began
    load_compiled(task)
    # Reused from the store or remembered: nothing was trained on in this round.
    tokens = int(teacher.metrics["tokens"]) if was_fresh else 0
    return Begun(task, seen, teacher, tokens, llm_seconds, seconds)


def _in_round(train: TrainSettings, instruction: TrainIns, backend: str) -> TrainSettings:
    """Return how a round trains: warm rounds by Adam, and Adam at the rate that is left."""
    changes: dict[str, Any] = {}
    optimizer = local_optimizer(train.optimizer, backend)
    if instruction.round <= train.warm_rounds:
        changes["optimizer"] = optimizer = "adam"
    if instruction.rate < 1 and optimizer in ("adam", "parameter-shift", "descent"):
        changes["learning_rate"] = train.learning_rate * instruction.rate
    return train.model_copy(update=changes) if changes else train


def train_round(
    cache: SiteCache, begun: Begun, instruction: TrainIns, outcome: Outcome | None = None
) -> tuple[TrainReport, Outgoing]:
    """Train the quantum classifier from the global parameters, guided by the site's teacher.

    Parameters
    ----------
    cache : SiteCache
        The site.
    begun : Begun
        What is to be trained.
    instruction : TrainIns
        The same that `begin_training` was given.
    outcome : Outcome, optional
        Of a training that was done together with other clients'; None: it is done now.

    Returns
    -------
    tuple
        The figures of the round, and the trained parameters as they may leave the site.
    """
    from data import scores

    began, teacher = time.monotonic(), begun.teacher
    result, probabilities, spent = _trained(cache, begun, instruction.round, outcome)
    scored = scores(cache.labels("validation"), probabilities)
    seconds = time.monotonic() - began + begun.seconds + (outcome.seconds if outcome else 0.0)
    weight = _weight(cache, begun, result)
    report = TrainReport(
        rows=int((begun.task.data.labels >= 0).sum()),
        round=instruction.round,
        steps=result.steps,
        loss=scored["loss"],
        accuracy=scored["accuracy"],
        # The training rows' own loss carries no noise.
        train_loss=scored["loss"] if begun.task.privacy else result.losses[-1],
        distill_weight=begun.task.distill.weight,
        distill_temperature=begun.task.distill.temperature if begun.task.distill.weight else 0.0,
        **_teacher_figures(teacher),
        llm_tokens=begun.llm_tokens,
        llm_seconds=begun.llm_seconds,
        # A queue is nobody's work; it has its own line in the ledger.
        train_seconds=max(seconds - spent["queue_seconds"], 0.0),
        # Masked with the update under secure aggregation, and said nowhere else.
        weight=1.0 if cache.settings.privacy.secure_aggregation else weight,
        **spent,
    )
    threshold = group_threshold(instruction)
    trained = Outgoing(
        dict(begun.task.parameters), result.parameters, instruction.round, weight, threshold
    )
    return report, outgoing(cache, trained)


def _weight(cache: SiteCache, begun: Begun, result: TrainResult) -> float:
    """Return by what the site's rows count: 1, or what its device is worth."""
    if cache.settings.aggregation.weighting == "rows":
        return 1.0
    return device_weight(begun.task.classifier.error, result.noise)


def _trained(
    cache: SiteCache, begun: Begun, number: int, outcome: Outcome | None
) -> tuple[TrainResult, npt.NDArray[np.float64], CircuitCost]:
    """Train on a site's rows and evaluate the result on its validation rows.

    Returns
    -------
    tuple
        The training, the validation rows' class probabilities (rows, C), and what both cost.
    """
    from quantum import evaluate, metered, train_together

    settings, classifier, seen = cache.settings, begun.task.classifier, begun.seen
    warm = number <= settings.train.warm_rounds
    # Under federated evaluation this site is still to evaluate the round, and the last model.
    federated = settings.evaluation.mode == "federated"
    later = (len(seen), len(cache.labels("test"))) if federated else ()
    with metered(classifier, f"train, round {number}", free=warm) as meter:
        meter.reserve(len(seen), *later)
        result = train_together([begun.task])[0] if outcome is None else outcome.result
        if isinstance(result, Exception):
            raise result
        meter.reserve(*later, overdraw=True)  # else the steps that were paid would be lost
        probabilities, evaluated = evaluate(classifier, result.parameters, seen)
        return result, probabilities, meter.cost(result.circuits + evaluated)


def _teacher_figures(teacher: Teacher) -> dict[str, Any]:
    """Return a teacher's part of a training report."""
    figures = teacher.metrics
    return {
        "llm_loss": float(figures["loss"]),
        "llm_accuracy": float(figures["accuracy"]),
        "llm_macro_f1": float(figures["macro_f1"]),
        "llm_raw_loss": float(figures["raw_loss"]),
        "llm_temperature": float(teacher.temperature),
        "llm_epochs": int(figures["epochs"]),
        "llm_reused": int(figures["reused"]),
        "llm_cut": int(figures.get("cut", 0)),
    }


def evaluate_round(
    cache: SiteCache, parameters: Parameters, instruction: EvaluateIns
) -> EvaluateReport:
    """Judge the global parameters on the site's own validation or test rows.

    Parameters
    ----------
    cache : SiteCache
        The site.
    parameters : dict of arrays
        The global angles (P,), scale and bias (R,).
    instruction : EvaluateIns
        Which rows, and the projection.

    Returns
    -------
    EvaluateReport
        Loss and confusion; with the test rows those of the site's own baselines. A site without
        such rows answers with 0 rows.
    """
    import torch

    from data import Projection, scores
    from quantum import NO_COST, evaluate, metered

    torch.set_num_threads(cache.settings.quantum.threads)
    labels = cache.labels("test" if instruction.split == "test" else "validation")
    if not len(labels):
        return EvaluateReport(0, 0.0, [], **NO_COST, train_seconds=0.0, **NO_BASELINES)
    projection = Projection.from_bytes(instruction.projection)
    cache.take_projection(projection)
    seen = projection.apply(cache.features(instruction.split))
    # On the node's own backend in warm rounds too: rounds are held against each other.
    classifier = cache.classifier
    began = time.monotonic()
    with metered(classifier, f"evaluate {instruction.split}, round {instruction.round}") as meter:
        meter.reserve(*() if instruction.split == "test" else (len(cache.labels("test")),))
        probabilities, circuits = evaluate(classifier, parameters, seen)
        spent = meter.cost(circuits)
    seconds = max(time.monotonic() - began - spent["queue_seconds"], 0.0)
    scored = scores(labels, probabilities)
    baselines = NO_BASELINES
    if instruction.split == "test" and cache.settings.evaluation.baselines:
        baselines = _local_baselines(cache, projection)
    return EvaluateReport(
        rows=len(labels),
        loss=scored["loss"],
        confusion=_flat(scored["confusion"]),
        **spent,
        train_seconds=seconds,
        **baselines,
    )


NO_BASELINES: dict[str, list[int]] = {"logistic_projected": [], "logistic_full": []}


def _local_baselines(cache: SiteCache, projection: Projection) -> dict[str, list[int]]:
    """Confusions of the site's own regressions on its test rows, fitted on its training rows."""
    from data import linear_baseline

    train, test = cache.labels("train"), cache.labels("test")
    if len(np.unique(train)) < cache.classes:
        return NO_BASELINES
    full = cache.features("train"), cache.features("test")
    seed = derive_seed(cache.settings.run.seed, "baseline", cache.client)
    balanced = cache.settings.train.class_weights == "balanced"
    found = [
        linear_baseline(one, train, other, test, cache.classes, seed, balanced)
        for one, other in (tuple(map(projection.apply, full)), full)
    ]
    flat = [_flat(scored["confusion"]) for scored in found]
    return dict(zip(NO_BASELINES, flat, strict=True))


def _flat(confusion: npt.ArrayLike) -> list[int]:
    return [int(count) for count in np.asarray(confusion).ravel()]
