"""What a client does for each message: plain functions of its memory and the order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client_app.site import SiteMemory
from core import derive_seed, display_safe
from core.messages import (
    NO_ENCODER,
    UNSET,
    EvaluateIns,
    EvaluateReport,
    Parameters,
    SiteReport,
    TrainIns,
    TrainReport,
)

if TYPE_CHECKING:
    from data import Moments, Projection
    from llm import Teacher
    from quantum import CircuitCost, TrainingData, TrainResult


def prepare_site(memory: SiteMemory) -> tuple[SiteReport, Parameters]:
    """Describe the site and compute the moments of its training features.

    Returns
    -------
    tuple
        The report, and the arrays ``count`` (C,), ``sums`` (C, d) and ``second`` (d, d).
    """
    from client_app.adapting import packed, site_moments
    from client_app.identity import rows_digest
    from data import class_rows, feature_kind
    from llm import local_model
    from quantum import circuits_before_steps, circuits_per_step

    began = time.monotonic()
    settings, site = memory.settings, memory.site
    moments = site_moments(memory)
    kind = feature_kind(memory.info.kind, settings.features)
    model, source = local_model(settings, memory.info.kind, embeds=kind == "embedding")
    shared = settings.llm.federated != "none"
    # Built now so that a backend that is not there is told before anybody fine-tunes.
    classifier = memory.classifier
    if not getattr(classifier.engine, "repeatable", True):
        memory.tell(f"{settings.quantum.backend} takes no seed: no run on it can be repeated")
    judged = len(site.validation) * (2 if settings.evaluation.mode == "federated" else 1)
    about = SiteReport(
        client=memory.client,
        site=memory.name,
        train_rows=len(site.train),
        val_rows=len(site.validation),
        test_rows=len(site.test),
        class_rows=class_rows(site.train.labels, memory.classes),
        classes=list(memory.info.classes),
        data=memory.info.name,
        kind=memory.info.kind,
        features=_features(kind, moments),
        backend=_backend(memory),
        llm=model,
        encoder=source.identity if source and (kind == "embedding" or shared) else NO_ENCODER,
        adapter_bytes=_adapter_bytes(memory) if shared else 0,
        circuits_per_step=circuits_per_step(
            settings.train, len(site.train), classifier.angles, settings.quantum.backend
        ),
        circuits_fixed=judged + circuits_before_steps(settings.train, len(site.train)),
        shots_per_circuit=int(getattr(classifier.engine, "shots", 0)),
        seconds=time.monotonic() - began,
        rows_digest=rows_digest(memory),
        notes=_notes(memory),
    )
    return about, packed(moments)


def _notes(memory: SiteMemory) -> str:
    """Say what is odd about this site's rows, where the server does not see it itself."""
    data = memory.settings.data
    shared_federated = memory.settings.evaluation.mode == "federated" and memory.client == 0
    if not (data.per_site or shared_federated):
        return UNSET
    return display_safe("; ".join(memory.info.notes))[:500] or UNSET


def _features(kind: str, moments: Moments) -> str:
    """Name the features and their number, which the shared adapter's round tells later."""
    number = moments.second.shape[0]
    return f"{kind}, {number}" if number else f"{kind} by the shared adapter"


def _adapter_bytes(memory: SiteMemory) -> int:
    from llm import shared_bytes

    return shared_bytes(memory.settings.llm, memory.info.kind, memory.classes)


def _backend(memory: SiteMemory) -> str:
    """Name the node's backend, and what ``least_busy`` has found."""
    from quantum import DeviceEngine

    name, engine = memory.settings.quantum.backend, memory.classifier.engine
    if name == "ibm:least_busy" and isinstance(engine, DeviceEngine):
        return f"{name} ({engine.device_name})"
    return name


def train_round(
    memory: SiteMemory, parameters: Parameters, told: TrainIns
) -> tuple[TrainReport, Parameters]:
    """Train the quantum classifier from the global parameters, guided by the site's teacher.

    Parameters
    ----------
    memory : SiteMemory
        The site.
    parameters : dict of arrays
        The global angles (P,), scale and bias (R,).
    told : TrainIns
        Round, steps, class weights and projection.

    Returns
    -------
    tuple
        The numbers of the round, and the trained parameters in the same shapes.
    """
    import torch

    from data import Projection, scores
    from quantum import TrainingData

    settings = memory.settings
    torch.set_num_threads(settings.quantum.threads)
    was_fresh = not memory.remembers_teacher
    teacher, llm_seconds = memory.teacher()
    projection = Projection.from_bytes(told.projection)
    rows = TrainingData(
        features=projection.apply(memory.features("train")),
        labels=memory.labels("train"),
        soft_labels=teacher.soft_labels if settings.distill.weight > 0 else None,
        class_weights=np.asarray(told.class_weights),
        hidden=teacher.hidden if settings.distill.features > 0 else None,
    )
    seen = projection.apply(memory.features("validation"))
    # Loading rows and features again in a new process is no training.
    began = time.monotonic()
    result, probabilities, spent = _trained(memory, parameters, told, rows, seen)
    verdict = scores(memory.labels("validation"), probabilities)
    numbers = TrainReport(
        rows=len(rows.labels),
        round=told.round,
        steps=result.steps,
        loss=verdict["loss"],
        accuracy=verdict["accuracy"],
        train_loss=result.losses[-1],
        **_teacher_figures(teacher),
        # Reused from the store or remembered: nothing was trained on in this round.
        llm_tokens=int(teacher.metrics["tokens"]) if was_fresh else 0,
        llm_seconds=llm_seconds,
        # A queue is nobody's work; it has its own line in the ledger.
        train_seconds=max(time.monotonic() - began - spent["queue_seconds"], 0.0),
        **spent,
    )
    return numbers, _as_sent(memory, parameters, result.parameters, told.round)


def _as_sent(
    memory: SiteMemory, begun: Parameters, trained: Parameters, server_round: int
) -> Parameters:
    """Return the trained parameters as they may leave the site: with local privacy noised."""
    privacy = memory.settings.privacy
    if privacy.dp != "local":
        return trained
    from core.privacy import clipped, noise_seed, noised

    seed = noise_seed(memory.settings, "update", memory.client, server_round)
    update = clipped(trained, begun, privacy.clip)
    return noised(update, privacy.noise * privacy.clip, seed)


def _trained(
    memory: SiteMemory,
    parameters: Parameters,
    told: TrainIns,
    rows: TrainingData,
    seen: npt.NDArray[np.float32],
) -> tuple[TrainResult, npt.NDArray[np.float64], CircuitCost]:
    """Train on a site's rows and judge the result on its validation rows.

    Returns
    -------
    tuple
        The training, the validation rows' class probabilities (rows, C), and what both cost.
    """
    from quantum import evaluate, metered, train_local

    settings = memory.settings
    warm = told.round <= settings.train.warm_rounds
    classifier = memory.classifier_in(told.round)
    # Under federated evaluation this site is still to judge the round, and the last model.
    federated = settings.evaluation.mode == "federated"
    later = (len(seen), len(memory.labels("test"))) if federated else ()
    with metered(classifier, f"train, round {told.round}", free=warm) as meter:
        meter.reserve(len(seen), *later)
        result = train_local(
            classifier,
            parameters,
            rows,
            settings.train.model_copy(update={"optimizer": "adam"}) if warm else settings.train,
            settings.distill.in_round(told.round),
            steps=told.steps,
            step_offset=told.step_offset,
            seed=derive_seed(settings.run.seed, "train", memory.client, told.round),
        )
        meter.reserve(*later, overdraw=True)  # else the steps that were paid would be lost
        probabilities, judged = evaluate(classifier, result.parameters, seen)
        return result, probabilities, meter.cost(result.circuits + judged)


def _teacher_figures(teacher: Teacher) -> dict[str, Any]:
    """Return a teacher's part of a training report."""
    said = teacher.metrics
    return {
        "llm_loss": float(said["loss"]),
        "llm_accuracy": float(said["accuracy"]),
        "llm_macro_f1": float(said["macro_f1"]),
        "llm_raw_loss": float(said["raw_loss"]),
        "llm_temperature": float(teacher.temperature),
        "llm_epochs": int(said["epochs"]),
        "llm_reused": int(said["reused"]),
        "llm_cut": int(said.get("cut", 0)),
    }


def evaluate_round(memory: SiteMemory, parameters: Parameters, told: EvaluateIns) -> EvaluateReport:
    """Judge the global parameters on the site's own validation or test rows.

    Parameters
    ----------
    memory : SiteMemory
        The site.
    parameters : dict of arrays
        The global angles (P,), scale and bias (R,).
    told : EvaluateIns
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

    torch.set_num_threads(memory.settings.quantum.threads)
    labels = memory.labels("test" if told.split == "test" else "validation")
    if not len(labels):
        return EvaluateReport(0, 0.0, [], **NO_COST, train_seconds=0.0, **NO_BASELINES)
    projection = Projection.from_bytes(told.projection)
    seen = projection.apply(memory.features(told.split))
    # On the node's own backend in warm rounds too: rounds are held against each other.
    classifier = memory.classifier
    began = time.monotonic()
    with metered(classifier, f"evaluate {told.split}, round {told.round}") as meter:
        meter.reserve(*() if told.split == "test" else (len(memory.labels("test")),))
        probabilities, circuits = evaluate(classifier, parameters, seen)
        spent = meter.cost(circuits)
    seconds = max(time.monotonic() - began - spent["queue_seconds"], 0.0)
    verdict = scores(labels, probabilities)
    baselines = NO_BASELINES
    if told.split == "test" and memory.settings.evaluation.baselines:
        baselines = _local_baselines(memory, projection)
    return EvaluateReport(
        rows=len(labels),
        loss=verdict["loss"],
        confusion=_flat(verdict["confusion"]),
        **spent,
        train_seconds=seconds,
        **baselines,
    )


NO_BASELINES: dict[str, list[int]] = {
    "logistic_projected": [],
    "logistic_full": [],
}


def _local_baselines(memory: SiteMemory, projection: Projection) -> dict[str, list[int]]:
    """Confusions of the site's own regressions on its test rows, fitted on its training rows."""
    from data import linear_baseline

    train, test = memory.labels("train"), memory.labels("test")
    if len(np.unique(train)) < memory.classes:
        return NO_BASELINES
    full = memory.features("train"), memory.features("test")
    seed = derive_seed(memory.settings.run.seed, "baseline", memory.client)
    found = [
        linear_baseline(one, train, other, test, memory.classes, seed)
        for one, other in (tuple(map(projection.apply, full)), full)
    ]
    flat = [_flat(verdict["confusion"]) for verdict in found]
    return dict(zip(NO_BASELINES, flat, strict=True))


def _flat(confusion: npt.ArrayLike) -> list[int]:
    return [int(count) for count in np.asarray(confusion).ravel()]
