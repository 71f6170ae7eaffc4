"""Who judges the global model: the server on rows of its own, or every node on its own.

Validation rows are used every round and decide which round's model is kept; test rows are
used once, at the end. Features are projected by a map fitted on training rows only. Unless
`evaluation.backend` says otherwise the server judges on the exact simulator, so it spends no
quantum time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from logging import INFO
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Settings, UserError, derive_seed, open_store, with_idle
from core.messages import EvaluateReport, unpack_parameters
from strategies import LlmQfl, Member, rows_that_count
from strategies.agents import Decision
from strategies.row_weights import counted_classes, dominant

if TYPE_CHECKING:
    from data import ServerData
    from llm import FrozenAdapter
    from server_app.prepare import Prepared

Verdict = dict[str, Any]


class Judge(Protocol):
    """Judges parameters on validation rows each round and on test rows once."""

    @property
    def rows(self) -> tuple[int, int]:
        """Validation and test rows."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the rows that the server sees; a line each."""

    def validate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Judge a round's model at the server; None leaves it to the clients."""

    @property
    def score(self) -> Callable[[ArrayRecord], float] | None:
        """Validation loss of any parameters, nats; None where judging them would cost circuits."""

    def test(self, arrays: ArrayRecord) -> tuple[Verdict, dict[str, Verdict]]:
        """Return the final scores and the baselines' scores on the same test rows."""

    def spent(self) -> dict[str, float]:
        """Return what the server's own evaluations cost on a device; empty: nothing."""


class CentralJudge:
    """Validation and test rows at the server.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    prepared : Prepared
        The federated projection, the clients' model, and their shared adapter.
    run_id : str
        Flower's id of the run, to which the judge's own jobs belong.
    """

    def __init__(self, settings: Settings, prepared: Prepared, run_id: str = "") -> None:
        import torch

        from data import load_server
        from quantum import Host, build_classifier

        torch.set_num_threads(settings.quantum.threads)
        self.settings, self.projection = settings, prepared.projection
        self.data: ServerData = load_server(settings)
        self.adopted = _adopted(settings, prepared, len(self.data.classes))
        quantum = settings.quantum.model_copy(update={"backend": settings.evaluation.backend})
        host = Host(
            hardware=settings.hardware.without_budgets(),
            seed=derive_seed(settings.run.seed, "judge"),
            layout_seed=settings.run.seed,
            timeout=settings.run.round_timeout,
            store=open_store(settings.llm.store),
            run=f"{run_id}/judge",
        )
        self.classifier = build_classifier(quantum, len(self.data.classes), host)
        self.validation = self.projection.apply(self._raw(self.data.validation.texts))
        self.tested = False

    @property
    def rows(self) -> tuple[int, int]:
        """Validation and test rows."""
        return len(self.data.validation), len(self.data.test)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the rows that the server sees; a line each."""
        return self.data.info.notes

    def _raw(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        from data import raw_features
        from llm import stored_embedding

        llm, kind = self.settings.llm, self.data.kind
        store = open_store(llm.store) / "features"
        return raw_features(
            texts,
            kind,
            self.settings.features,
            lambda rows: stored_embedding(rows, llm, kind, store, _tell, self.adopted),
        )

    def _probabilities(
        self, arrays: ArrayRecord, features: npt.NDArray[np.float32], label: str
    ) -> npt.NDArray[np.float64]:
        """Return class probabilities (rows, C) of a model's parameters."""
        from quantum import evaluate, metered

        with metered(self.classifier, label):
            return evaluate(self.classifier, unpack_parameters(arrays), features)[0]

    def _judge(self, arrays: ArrayRecord, label: str) -> Verdict:
        """Score a model on the validation rows."""
        from data import scores

        found = self._probabilities(arrays, self.validation, label)
        return scores(self.data.validation.labels, found)

    def spent(self) -> dict[str, float]:
        """Return what the server's own evaluations cost on a device; empty: nothing."""
        from quantum import DeviceEngine

        engine = self.classifier.engine
        return asdict(engine.usage) if isinstance(engine, DeviceEngine) else {}

    def validate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Judge a round's model on the server's validation rows."""
        label = f"validation, round {server_round}"
        verdict = self._judge(arrays, label)
        return MetricRecord({key: verdict[key] for key in ("loss", "accuracy", "rows")})

    @property
    def score(self) -> Callable[[ArrayRecord], float] | None:
        """Validation loss of any parameters; None on a device, where each judgement costs jobs."""
        return self._loss if self.settings.evaluation.backend == "exact" else None

    def _loss(self, arrays: ArrayRecord) -> float:
        return float(self._judge(arrays, "credit")["loss"])

    def test(self, arrays: ArrayRecord) -> tuple[Verdict, dict[str, Verdict]]:
        """Score the kept model on the test rows, once.

        Where some of them stand in the training rows too, ``unseen`` scores the others.
        """
        if self.tested:
            raise RuntimeError("test rows are used once")
        from data import calibration, scores

        self.tested = True
        raw = self._raw(self.data.test.texts)
        projected = self.projection.apply(raw)
        probabilities = self._probabilities(arrays, projected, "test")
        labels = self.data.test.labels
        verdict = scores(labels, probabilities) | calibration(labels, probabilities)
        fresh = ~self.data.seen
        if not fresh.all() and fresh.any():
            verdict["unseen"] = scores(self.data.test.labels[fresh], probabilities[fresh])
        return verdict, self._baselines(raw, projected)

    def _baselines(
        self, raw: npt.NDArray[np.float32], projected: npt.NDArray[np.float32]
    ) -> dict[str, Verdict]:
        """Baselines fitted on the pooled training rows; none where nobody may pool them."""
        from data import linear_baseline, majority_baseline

        train, test, classes = self.data.train, self.data.test, len(self.data.classes)
        if not len(train) or not self.settings.evaluation.baselines:
            return {}
        # A site at a time: in a simulation its own embeddings are in the store already.
        full = np.concatenate([self._raw(site.texts) for site in self.data.sites if len(site)])
        seed = derive_seed(self.settings.run.seed, "baseline")
        sides = {
            "logistic_projected": (self.projection.apply(full), projected),
            "logistic_full": (full, raw),
        }
        found = {"majority": majority_baseline(train.labels, test.labels, classes)}
        for name, (fitted, judged) in sides.items():
            found[name] = linear_baseline(fitted, train.labels, judged, test.labels, classes, seed)
        return found


def _tell(line: str) -> None:
    log(INFO, "server: %s", line)


def _adopted(settings: Settings, prepared: Prepared, classes: int) -> FrozenAdapter | None:
    """Return the shared adapter where it makes the features."""
    from llm import freeze_adapter

    if prepared.adapter is None or settings.features.encoder != "shared":
        return None
    return freeze_adapter(prepared.adapter.arrays, classes, settings.run.seed)


class FederatedJudge:
    """Validation and test rows at the nodes; the server adds confusions up.

    The majority class is that of all training rows. The regressions are the sites' own, each
    fitted on one site's training rows, and left out if a site has no rows of some class.
    """

    def __init__(self, strategy: LlmQfl, grid: Grid, members: Sequence[Member]) -> None:
        self.strategy, self.grid = strategy, grid
        self._rows = (
            sum(member.about.val_rows for member in members),
            sum(member.about.test_rows for member in members),
        )
        settings = strategy.settings
        self._counted = rows_that_count(members, "test_rows", settings)
        self._train_rows = counted_classes(
            {member.client: member.about.class_rows for member in members},
            rows_that_count(members, "train_rows", settings),
        )

    @property
    def rows(self) -> tuple[int, int]:
        """Validation and test rows over all nodes."""
        return self._rows

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: the server sees no rows; the sites report on theirs."""
        return ()

    def validate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Leave it to the clients."""
        return None

    @property
    def score(self) -> Callable[[ArrayRecord], float] | None:
        """Nobody: the server has no rows."""
        return None

    def spent(self) -> dict[str, float]:
        """Nothing: the clients' evaluations are in the ledger."""
        return {}

    def test(self, arrays: ArrayRecord) -> tuple[Verdict, dict[str, Verdict]]:
        """Let every node judge the kept model on its test rows, and add them up."""
        reports, failures = self._ask(arrays)
        if not reports:
            raise UserError(
                f"no client scored the test rows ({'; '.join(failures) or 'no test rows'})",
                "at least one client with test rows",
                "give the sites test rows or look at their logs",
            )
        verdict, baselines = summed_verdict(reports, self._counted, self._train_rows)
        shown = baselines if self.strategy.settings.evaluation.baselines else {}
        verdict |= {"sites": len(reports), "failures": failures}
        if apart := self._without(reports):
            verdict["without"] = apart
        return verdict, shown

    def _without(self, reports: Mapping[int, EvaluateReport]) -> list[Verdict]:
        """Score the test without each dominant site: what it declares decides what is reported."""
        rows = {client: report.rows for client, report in reports.items()}
        held = {client: self._counted[client] for client in reports}
        found = []
        for client in dominant(rows, held):
            others = {k: report for k, report in reports.items() if k != client}
            scored, _ = summed_verdict(others, self._counted, self._train_rows)
            figures = {key: scored[key] for key in ("rows", "accuracy", "macro_f1", "loss")}
            said = {"client": client, "declared": rows[client], "counted": held[client]}
            found.append({**said, **figures})
        return found

    def _ask(self, arrays: ArrayRecord) -> tuple[dict[int, EvaluateReport], list[str]]:
        """Let every client that is there score its test rows.

        Returns
        -------
        tuple
            The answers by client, and what failed. Their cost is the ledger's last entry, one
            round after the last.
        """
        strategy = self.strategy
        state, timeout = strategy.state, strategy.settings.run.round_timeout
        begun = (entry[0] for entry in state.ledger.entries)
        number = max([len(state.losses), *begun]) + 1
        now = strategy.begin_round(number, Decision(participants=(), steps={}))
        for client in sorted(strategy.muster(self.grid)):
            now.fail(client, "it is not there, or still at an old order")
        split = ConfigRecord({"split": "test"})
        orders = strategy.configure_evaluate(number, arrays, split, self.grid)
        replies = self.grid.send_and_receive(list(orders), timeout=timeout)
        reports = strategy.read_evaluations(replies, "test")
        state.ledger.add(number, with_idle(now.evaluation))
        return reports, now.failures


def summed_verdict(
    reports: Mapping[int, EvaluateReport],
    counted: Mapping[int, int],
    train_rows: npt.ArrayLike,
) -> tuple[Verdict, dict[str, Verdict]]:
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
    verdict = confusion_scores(confusion)
    verdict["loss"] = sum(counted[k] * report.loss for k, report in reports.items()) / rows
    constant = np.zeros_like(confusion)
    constant[:, np.argmax(train_rows)] = confusion.sum(axis=1)
    baselines = {"majority": confusion_scores(constant)}
    for name in ("projected", "full"):
        if all(getattr(report, f"logistic_{name}") for report in reports.values()):
            baselines[f"local_{name}"] = confusion_scores(summed(f"logistic_{name}"))
    return verdict, baselines
