"""Evaluation of the global model: at the server on its own rows, or added up over the nodes.

Validation rows are used every round and decide which round's model is kept; test rows are
used once, at the end. Features are projected by a map fitted on training rows only. Unless
`evaluation.backend` says otherwise the server evaluates on the exact simulator, so it spends no
quantum time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from logging import INFO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, MetricRecord
from flwr.common.logger import log

from core import Settings, UserError, derive_seed, open_store
from core.messages import EvaluateReport, pack_parameters, unpack_parameters
from server_app.pipeline import Embed, Pipeline
from server_app.prepare import rows_by_class
from strategies import rows_that_count
from strategies.context import EvaluationResult, PreparedFederation
from strategies.row_weights import dominant

if TYPE_CHECKING:
    from data import ServerData
    from llm import FrozenAdapter


class CentralEvaluator:
    """Evaluates on validation and test rows at the server.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    federation : PreparedFederation
        The federated projection, and the clients' shared adapter.
    run_id : str
        Flower's id of the run, to which the evaluator's own jobs belong.
    earlier : mapping, optional
        What `spent` returned when the run was interrupted.
    """

    def __init__(
        self,
        settings: Settings,
        federation: PreparedFederation,
        run_id: str = "",
        earlier: Mapping[str, float] | None = None,
    ) -> None:
        import torch

        from data import Projection, load_server
        from quantum import Host, build_classifier

        torch.set_num_threads(settings.quantum.threads)
        self.settings, self.earlier = settings, dict(earlier or {})
        self.class_weights = np.asarray(federation.class_weights, dtype=np.float64)
        self.data: ServerData = load_server(settings)
        classes = len(self.data.classes)
        quantum = settings.quantum.model_copy(update={"backend": settings.evaluation.backend})
        host = Host(
            hardware=settings.hardware.without_budgets(),
            seed=derive_seed(settings.run.seed, "judge"),
            layout_seed=settings.run.seed,
            timeout=settings.run.round_timeout,
            store=open_store(settings.llm.store),
            run=f"{run_id}/judge",
        )
        self.pipeline = Pipeline(
            settings,
            self.data.kind,
            _embedder(settings, self.data.kind, _frozen_adapter(settings, federation, classes)),
            Projection.from_bytes(federation.projection),
            build_classifier(quantum, classes, host),
        )
        self.projection = self.pipeline.projection
        self.validation = self.projection.apply(self.pipeline.raw(self.data.validation.texts))
        self.tested = False

    @property
    def rows(self) -> tuple[int, int]:
        """Validation and test rows."""
        return len(self.data.validation), len(self.data.test)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the rows that the server sees; a line each."""
        return self.data.info.notes

    def _probabilities(
        self, arrays: ArrayRecord, features: npt.NDArray[np.float32], label: str
    ) -> npt.NDArray[np.float64]:
        """Return class probabilities (rows, C) of a model's parameters."""
        return self.pipeline.probabilities(unpack_parameters(arrays), features, label)

    def _validated(self, arrays: ArrayRecord, label: str) -> EvaluationResult:
        """Score a model on the validation rows."""
        from data import scores

        found = self._probabilities(arrays, self.validation, label)
        return scores(self.data.validation.labels, found)

    def validate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Evaluate a round's model on the server's validation rows."""
        result = self._validated(arrays, f"validation, round {server_round}")
        return MetricRecord({key: result[key] for key in ("loss", "accuracy", "rows")})

    def loss(self, arrays: ArrayRecord) -> float:
        """Return the validation loss of any parameters, nats."""
        return float(self._validated(arrays, "credit")["loss"])

    def credit_loss(self, arrays: ArrayRecord) -> float:
        """Return the validation loss with the sites' class weights, nats: what they train for.

        By the plain loss a site that holds mostly a rare class seems to do harm.
        """
        found = self._probabilities(arrays, self.validation, "credit")
        labels = np.asarray(self.data.validation.labels, dtype=np.int64)
        weights = self.class_weights[labels]
        likely = np.maximum(found[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
        return float(-(weights * np.log(likely)).sum() / weights.sum())

    def corrected(self, arrays: ArrayRecord) -> tuple[ArrayRecord, dict[str, Any]]:
        """Shift a model's logits as `evaluation.prior_correction` says, and say what it found.

        The rows' loss is weighted as in training: where `train.class_weights` balances the classes
        each counts alike.
        """
        from server_app.prior import prior_correction

        if self.settings.evaluation.prior_correction == "none":
            return arrays, {}
        labels = np.asarray(self.data.validation.labels, dtype=np.int64)
        found = prior_correction(
            self._probabilities(arrays, self.validation, "prior"),
            labels,
            self.settings.train.class_weights == "balanced",
            derive_seed(self.settings.run.seed, "prior"),
        )
        facts = {
            "applied": found.pays,
            "gain": found.gain,
            "error": found.error,
            "shift": found.shift.tolist(),
        }
        if not found.pays:
            return arrays, facts
        parameters = self.pipeline.classifier.shifted(unpack_parameters(arrays), found.shift)
        return pack_parameters(parameters), facts

    def spent(self) -> dict[str, float]:
        """Return what the evaluations cost on a device, in all parts of the run."""
        from quantum import DeviceEngine

        engine = self.pipeline.classifier.engine
        now = asdict(engine.usage) if isinstance(engine, DeviceEngine) else {}
        return {k: now.get(k, 0) + self.earlier.get(k, 0) for k in {**self.earlier, **now}}

    def test(self, arrays: ArrayRecord) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
        """Score the kept model on the test rows, once.

        Where some of them stand in the training rows too, ``unseen`` scores the others.
        """
        if self.tested:
            raise RuntimeError("test rows are used once")
        from data import calibration, scores

        self.tested = True
        raw = self.pipeline.raw(self.data.test.texts)
        projected = self.projection.apply(raw)
        probabilities = self._probabilities(arrays, projected, "test")
        labels, fresh = self.data.test.labels, ~self.data.seen
        result = scores(labels, probabilities) | calibration(labels, probabilities)
        if not fresh.all() and fresh.any():
            result["unseen"] = scores(labels[fresh], probabilities[fresh])
        return result, self._baselines(raw, projected)

    def _baselines(
        self, raw: npt.NDArray[np.float32], projected: npt.NDArray[np.float32]
    ) -> dict[str, EvaluationResult]:
        """Baselines fitted on the pooled training rows; none where nobody may pool them."""
        from data import linear_baseline, majority_baseline

        train, test, classes = self.data.train, self.data.test, len(self.data.classes)
        if not len(train) or not self.settings.evaluation.baselines:
            return {}
        # A site at a time: in a simulation its own embeddings are in the store already.
        sites = [site.texts for site in self.data.sites if len(site)]
        full = np.concatenate([self.pipeline.raw(texts) for texts in sites])
        seed = derive_seed(self.settings.run.seed, "baseline")
        sides = {
            "logistic_projected": (self.projection.apply(full), projected),
            "logistic_full": (full, raw),
        }
        found = {"majority": majority_baseline(train.labels, test.labels, classes)}
        balanced = self.settings.train.class_weights == "balanced"
        for name, (fitted, scored) in sides.items():
            rows = fitted, train.labels, scored, test.labels
            found[name] = linear_baseline(*rows, classes, seed, balanced)
        return found


def _embedder(settings: Settings, kind: Any, adapter: FrozenAdapter | None) -> Embed:
    """Return what embeds rows for the server, once: embeddings are stored."""
    from llm import stored_embedding

    store = open_store(settings.llm.store) / "features"
    return lambda rows: stored_embedding(rows, settings.llm, kind, store, _log_progress, adapter)


def _log_progress(line: str) -> None:
    log(INFO, "server: %s", line)


def _frozen_adapter(
    settings: Settings, federation: PreparedFederation, classes: int
) -> FrozenAdapter | None:
    """Return the shared adapter where it makes the features."""
    from llm import freeze_adapter

    if federation.adapter is None or settings.features.encoder != "shared":
        return None
    return freeze_adapter(federation.adapter.arrays, classes, settings.run.seed)


def federated_test(
    settings: Settings,
    federation: PreparedFederation,
    reports: Mapping[int, EvaluateReport],
    failures: list[str],
) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
    """Add up what the nodes report of their test rows.

    The majority class is that of all training rows. The regressions are the sites' own, each
    fitted on one site's training rows, and left out if a site has no rows of some class.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    federation : PreparedFederation
        The clients.
    reports : mapping
        Their reports by client.
    failures : list of str
        Which clients did not answer, and why.

    Returns
    -------
    tuple
        As `CentralEvaluator.test`; ``without`` scores the test without each dominant site.

    Raises
    ------
    UserError
        If there is no report.
    """
    if not reports:
        raise UserError(
            f"no client scored the test rows ({'; '.join(failures) or 'no test rows'})",
            "at least one client with test rows",
            "give the sites test rows or look at their logs",
        )
    members = federation.members
    counted = rows_that_count(members, "test_rows", settings)
    train_rows = rows_by_class(members, settings)
    result, baselines = summed_results(reports, counted, train_rows)
    result |= {"sites": len(reports), "failures": failures}
    if without := _without_dominant(reports, counted, train_rows):
        result["without"] = without
    return result, baselines if settings.evaluation.baselines else {}


def _without_dominant(
    reports: Mapping[int, EvaluateReport], counted: Mapping[int, int], train_rows: npt.ArrayLike
) -> list[EvaluationResult]:
    """Score the test without each dominant site: what it declares decides what is reported."""
    rows = {client: report.rows for client, report in reports.items()}
    held = {client: counted[client] for client in reports}
    found = []
    for client in dominant(rows, held):
        others = {k: report for k, report in reports.items() if k != client}
        scored, _ = summed_results(others, counted, train_rows)
        figures = {key: scored[key] for key in ("rows", "accuracy", "macro_f1", "loss")}
        found.append(
            {"client": client, "declared": rows[client], "counted": held[client], **figures}
        )
    return found


def summed_results(
    reports: Mapping[int, EvaluateReport], counted: Mapping[int, int], train_rows: npt.ArrayLike
) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
    """Add evaluations up: the mean loss by rows, all else from the summed confusions.

    Parameters
    ----------
    reports : mapping
        The sites' answers by client, at least one; confusions are C x C, flattened.
    counted : mapping
        Rows that each client counts for; a confusion is scaled to them.
    train_rows : array of float, shape (C,)
        Training rows of each class at all sites; the most frequent one is the majority class.

    Returns
    -------
    tuple
        The scores over all rows, as `data.scores`, and those of the baselines, without a loss:
        the majority class, and ``local_*`` where every site sent its own regression's.
    """
    from data import confusion_scores

    shares = {client: counted[client] / report.rows for client, report in reports.items()}

    def summed(name: str) -> npt.NDArray[np.float64]:
        found = [np.multiply(getattr(report, name), shares[k]) for k, report in reports.items()]
        classes = round(len(found[0]) ** 0.5)
        return np.asarray(np.sum(found, axis=0).reshape(classes, classes))

    rows = sum(counted[client] for client in reports)
    confusion = summed("confusion")
    result = confusion_scores(confusion)
    result["loss"] = sum(counted[k] * report.loss for k, report in reports.items()) / rows
    constant = np.zeros_like(confusion)
    constant[:, np.argmax(train_rows)] = confusion.sum(axis=1)
    baselines = {"majority": confusion_scores(constant)}
    for name in ("projected", "full"):
        if all(getattr(report, f"logistic_{name}") for report in reports.values()):
            baselines[f"local_{name}"] = confusion_scores(summed(f"logistic_{name}"))
    return result, baselines
