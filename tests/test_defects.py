"""The published code's defects: for each, a test that would have caught it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from core import parse_run
from core.messages import ARRAYS, TRAIN, pack_parameters, unpack_parameters
from tests.conftest import Federate

Real = npt.NDArray[np.float64]


def no_encoder(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Stand in where DNA needs no text encoder."""
    return np.zeros((0, 0), np.float32)


def blobs(classes: int, rows: int = 40) -> tuple[Real, npt.NDArray[np.int64]]:
    """Separable points in 4 dimensions, one cluster a class, in radians."""
    rng = np.random.default_rng(3)
    centres = rng.uniform(-1.2, 1.2, (classes, 4))
    labels = np.arange(rows) % classes
    return centres[labels] + rng.normal(0, 0.15, (rows, 4)), labels


def trained(classes: int, steps: int = 80, **more: Any) -> tuple[Any, Any, Real, Any]:
    from quantum import TrainingData, build_classifier, train_local

    settings, _ = parse_run([], ["distill.weight=0"])
    classifier = build_classifier(settings.quantum, classes)
    x, y = blobs(classes)
    result = train_local(
        classifier,
        classifier.initial(0),
        TrainingData(x, y),
        settings.train,
        settings.distill.in_round(1),
        steps=steps,
    )
    return classifier, result, x, y


def test_1_the_input_carries_the_labels_signal() -> None:
    """Published: the QCNN's input is random noise, unrelated to the row."""
    from data import load_site, raw_features

    settings, _ = parse_run([], ["run.clients=2", "data.train_rows=200"])
    _, site = load_site(settings, 0, 2)
    x = raw_features(site.train.texts, "dna", settings.features, no_encoder)
    means = [x[site.train.labels == c].mean(axis=0) for c in (0, 1)]
    spread = x.std(axis=0) + 1e-9
    assert np.abs((means[0] - means[1]) / spread).max() > 1.0
    classifier, result, points, labels = trained(2)
    from quantum import evaluate

    right, _ = evaluate(classifier, result.parameters, points)
    noise, _ = evaluate(classifier, result.parameters, np.random.default_rng(0).permutation(points))
    assert (right.argmax(axis=1) == labels).mean() > 0.95
    assert (noise.argmax(axis=1) == labels).mean() < 0.8


def test_2_read_outs_differ_and_each_class_is_predicted() -> None:
    """Published: three outputs are one observable, on a qubit that the last pooling discards."""
    from quantum import build_ansatz, evaluate

    settings, _ = parse_run([], [])
    ansatz = build_ansatz(settings.quantum, 3)
    assert len(set(ansatz.readouts)) == 4
    classifier, result, x, y = trained(3)
    probabilities, _ = evaluate(classifier, result.parameters, x)
    assert set(probabilities.argmax(axis=1)) == {0, 1, 2}
    assert (probabilities.argmax(axis=1) == y).mean() > 0.95
    logits = classifier.logits(result.parameters, classifier.prepare(x))
    assert min(np.ptp(logits[:, a] - logits[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 0.1


def test_3_the_kl_term_changes_the_training() -> None:
    """Published: there is no KL term anywhere."""
    from quantum import TrainingData, build_classifier, train_local

    with_kl, _ = parse_run([], ["distill.weight=0.5"])
    without, _ = parse_run([], ["distill.weight=0"])
    classifier = build_classifier(with_kl.quantum, 2)
    x, y = blobs(2)
    soft = np.where(np.eye(2)[1 - y] > 0, 0.9, 0.1)  # a teacher that says the opposite
    moved = [
        train_local(
            classifier,
            classifier.initial(0),
            TrainingData(x, y, soft),
            settings.train,
            settings.distill.in_round(1),
            steps=1,
        ).parameters["angles"]
        for settings in (with_kl, without)
    ]
    assert np.abs(moved[0] - moved[1]).max() > 1e-3


def test_4_round_two_starts_from_round_ones_aggregate(federate: Federate) -> None:
    """Published: a warm start overwrites the average, so clients train alone."""
    orders: dict[tuple[int, int], dict[str, Any]] = {}
    replies: dict[tuple[int, int], dict[str, Any]] = {}

    def watch(order: Message, reply: Message) -> Message:
        if order.metadata.message_type == TRAIN:
            key = (int(order.metadata.group_id), order.metadata.dst_node_id - 1000)
            orders[key] = unpack_parameters(order.content.array_records[ARRAYS])
            replies[key] = unpack_parameters(reply.content.array_records[ARRAYS])
        return reply

    federate("aggregation.rule=uniform", "aggregation.clip_radius=100", spoil=watch)
    for name in ("angles", "weights", "bias"):
        mean = np.mean([replies[1, client][name] for client in range(3)], axis=0)
        for client in range(3):
            np.testing.assert_allclose(orders[2, client][name], mean, rtol=1e-5, atol=1e-6)
    assert not np.allclose(orders[1, 0]["angles"], orders[2, 0]["angles"])


def test_5_termination_ends_the_run_and_selection_is_used(federate: Federate) -> None:
    """Published: termination is commented out; selection is computed and not used."""
    ran = federate("run.rounds=6", "stop.rule=change", "stop.tau=10", "stop.min_rounds=2")
    assert ran.summary["rounds"] == 2
    assert "mean |L_k - L_server| moved by" in ran.summary["stop_reason"]
    assert ran.decisions()[-1]["stop"]
    chosen = federate("agent.fraction=0.3")
    assert [len(e["participants"]) for e in chosen.events("round")] == [3, 1]
    assert len([e for e in chosen.events("client") if e["round"] == 2]) == 1
    kept = federate("agent.fraction=0.3", "agent.stage=aggregation")
    assert [len(e["participants"]) for e in kept.events("round")] == [3, 3]
    assert [len(e["aggregated"]) for e in kept.events("round")] == [3, 1]


def test_6_nothing_is_fitted_on_test_rows(federate: Federate, tmp_path: Path) -> None:
    """Published: reduction is fitted on train and test together."""
    rng = np.random.default_rng(0)

    def write(name: str, rows: int, letters: str) -> str:
        path = tmp_path / name
        lines = ["text,label"]
        for row in range(rows):
            # the classes differ in composition, so there is something to learn
            weights = (0.4, 0.1, 0.1, 0.4) if row % 2 else (0.1, 0.4, 0.4, 0.1)
            lines.append("".join(rng.choice(list(letters), 60, p=weights)) + f",{row % 2}")
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    train = write("train.csv", 200, "ACGT")
    tests = [write("test-a.csv", 30, "ACGT"), write("test-b.csv", 30, "GTAC")]
    given = ["data.source=csv", f"data.path={train}", "data.kind=dna", "data.test_rows=0"]
    runs = [federate(*given, f"data.test_path={path}") for path in tests]
    models = [load_file(run.folder / "model.safetensors") for run in runs]
    assert all(np.array_equal(models[0][key], models[1][key]) for key in models[0])
    assert runs[0].summary["test"] != runs[1].summary["test"]


def test_6_sides_hold_different_rows_and_the_server_tests_once() -> None:
    from data import fit_projection, load_server, load_site, moments_of, raw_features
    from server_app.evaluation import CentralEvaluator
    from strategies.context import PreparedFederation

    settings, _ = parse_run([], ["data.train_rows=120", "data.server_rows=40", "data.test_rows=60"])
    sites = [load_site(settings, client, 4)[1] for client in range(4)]
    server = load_server(settings)
    held = [set(s.train.texts) | set(s.validation.texts) for s in sites]
    held += [set(server.validation.texts), set(server.test.texts)]
    assert sum(len(rows) for rows in held) == len(set.union(*held))
    x = raw_features(server.train.texts, "dna", settings.features, no_encoder)
    moments = moments_of(x, server.train.labels, 2)
    projection = fit_projection(moments, 4, "lda", 0.1, 3.0, 0)
    evaluator = CentralEvaluator(
        settings, PreparedFederation((), {}, projection.to_bytes(), [1.0, 1.0])
    )
    arrays = pack_parameters(evaluator.pipeline.classifier.initial(0))
    evaluator.validate(1, arrays)
    evaluator.validate(2, arrays)
    assert evaluator.test(arrays)[0]["rows"] == 60
    with pytest.raises(RuntimeError, match="test rows are used once"):
        evaluator.test(arrays)


def test_6_each_client_has_its_own_teacher_compared_on_the_same_rows(federate: Federate) -> None:
    """Published: all devices share one LLM; a loss is compared with an F1 or a training loss."""
    ran = federate()
    teachers = ran.summary["teachers"]
    assert len({teacher["loss"] for teacher in teachers}) == 3
    for event in ran.events("client"):
        assert event["ratio"] == pytest.approx(event["loss"] / event["llm_loss"])


def test_7_labels_are_shuffled() -> None:
    """Published: labels are taken class by class, so subsets are single-class."""
    from data import load_site

    settings, _ = parse_run([], ["data.train_rows=120"])
    for client in range(4):
        labels = load_site(settings, client, 4)[1].train.labels
        assert set(labels) == {0, 1}
        changes = int(np.abs(np.diff(labels)).sum())
        assert changes > 3  # class by class there would be one change


def test_8_no_secret_and_no_undefined_name_in_the_tree() -> None:
    """Published: the IBM program has an undefined name and keeps its token in source."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[1]
    packages = [
        "llm_qfl.cli",
        "client_app",
        "data",
        "core",
        "llm",
        "quantum",
        "server_app",
        "strategies",
        "bench",
    ]
    command = [sys.executable, "-m", "ruff", "check", "--select", "F821,S105,S106", "--isolated"]
    found = subprocess.run([*command, *packages], cwd=root, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_9_same_seed_same_numbers(federate: Federate) -> None:
    """Published: no seed."""
    one, two = federate("agent.kind=random"), federate("agent.kind=random")
    assert one.summary["test"] == two.summary["test"]
    keep = ("round", "participants", "steps", "loss", "accuracy", "circuits")
    assert [{k: e[k] for k in keep} for e in one.events("round")] == [
        {k: e[k] for k in keep} for e in two.events("round")
    ]
