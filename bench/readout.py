"""Read-outs beside logistic regression: ``python -m bench.readout``.

Each model is trained in one place on the training rows of a draw and scored on other rows of the
training file; test rows are not read. All see the same discriminant features, and all losses weigh
classes. Adam takes 20 steps of 64 rows a round for 20 rounds, its rate 0.05 halved after every
fifth, and the mean of the last five rounds is scored. ``product`` is the circuit without
entanglement, with as many angles.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.tables import arguments, configured, head, row, sites_store
from core import DistillSettings, QuantumSettings, SettingsError, TrainSettings
from data import Moments, fit_projection, kmer_frequencies, moments_of, one_hot
from quantum import Classifier, TrainingData, build_classifier, evaluate, train_local
from quantum.costs import circuits_per_step

ROUNDS, STEPS, ROWS, KEPT = 20, 20, 64, 5
SCORED = 3000
TWEETS = 9000
Rows = npt.NDArray[Any]
Draw = tuple[Rows, Rows, Rows, Rows]
"""Angles and classes of the rows that train, and of those that are scored."""
Score = tuple[float, float]
"""Macro-recall in percent, and class-weighted loss in nats."""

MODELS: dict[str, dict[str, Any]] = {
    "per-class": {"readout": "per-class"},
    "linear": {},
    "linear-zz": {"readout": "linear-zz"},
    "linear, product": {"model": "product", "reps": 5},
}


class Problem(NamedTuple):
    """A data set: how many rows train, qubits, and shrinkage of the discriminant directions."""

    rows: int
    qubits: int
    shrinkage: float


PROBLEMS = {
    "tweets": Problem(1000, 4, 0.6),
    "trec": Problem(4300, 5, 0.1),
    "splice": Problem(2040, 4, 0.6),
    "human_vs_worm": Problem(6000, 4, 0.1),
}


def main(given: Sequence[str]) -> None:
    """Print the table."""
    options = {"--sets": {"nargs": "+", "choices": list(PROBLEMS), "default": list(PROBLEMS)}}
    seeds = (100, 101, 102, 103, 104)
    parsed = arguments("bench.readout", __doc__, "splice", given, options, seeds)
    print(head(["data", "model", "angles", "circuits", "macro-recall", "less LR's", "loss"]))
    with sites_store(parsed.store) as store:
        for name in parsed.sets:
            raw, labels = read(name, parsed.data, Path(store))
            draws = [draw(raw, labels, PROBLEMS[name], seed) for seed in parsed.seeds]
            base = [regression(*one) for one in draws]
            mean, loss = (statistics.fmean(part) for part in zip(*base, strict=True))
            print(row([name, "logistic regression", "", "", f"{mean:.1f}", "", f"{loss:.3f}"]))
            for label, chosen in MODELS.items():
                print(line(name, label, chosen, draws, parsed.seeds, base), flush=True)


def line(
    name: str,
    label: str,
    chosen: Mapping[str, Any],
    draws: Sequence[Draw],
    seeds: Sequence[int],
    base: Sequence[Score],
) -> str:
    """Train a model on each draw and return its line."""
    settings = QuantumSettings(qubits=PROBLEMS[name].qubits, **chosen)
    try:
        model = build_classifier(settings, int(draws[0][1].max()) + 1)
    except SettingsError:
        return row([name, label, "", "", "too few qubits", "", ""])
    found = [trained(model, seed, *one) for one, seed in zip(draws, seeds, strict=True)]
    gains = [mine[0] - other[0] for mine, other in zip(found, base, strict=True)]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    spent = (
        ROUNDS
        * STEPS
        * circuits_per_step(TrainSettings(batch_rows=ROWS), ROWS, model.ansatz.shifts)
    )
    recall, loss = (statistics.fmean(part) for part in zip(*found, strict=True))
    gain = f"{statistics.fmean(gains):+.1f} ± {error:.1f}"
    cells = [str(model.angles), f"{spent:,}", f"{recall:.1f}", gain, f"{loss:.3f}"]
    return row([name, label, *cells])


def read(name: str, data: Path, store: Path) -> tuple[Rows, Rows]:
    """Return raw features and classes of a training file."""
    if name == "tweets":
        folder = data / "tweet_eval" / "sentiment"
        labels = np.array((folder / "train_labels.txt").read_text().split(), dtype=np.int64)
        texts = (folder / "train_text.txt").read_text().split("\n")
        some = np.random.default_rng(100).permutation(len(labels))[:TWEETS]
        return embedded([texts[k] for k in some], store), labels[some]
    with (data / name / "train.csv").open() as file:
        rows, words = zip(*list(csv.reader(file))[1:], strict=True)
    labels = np.unique(words, return_inverse=True)[1]
    if name == "trec":
        return embedded(rows, store), labels
    return one_hot(rows) if name == "splice" else kmer_frequencies(rows, 4), labels


def embedded(texts: Sequence[str], store: Path) -> Rows:
    """Embed texts as `config/tweets.toml` does."""
    from llm import stored_embedding

    return stored_embedding(texts, configured("tweets.toml", [])[0].llm, "text", store)


def draw(raw: Rows, labels: Rows, problem: Problem, seed: int) -> Draw:
    """Return projected training rows, their classes, and the same of rows to score."""
    order = np.random.default_rng(seed).permutation(len(labels))
    ours, others = order[: problem.rows], order[problem.rows : problem.rows + SCORED]
    moments: Moments = moments_of(raw[ours], labels[ours], int(labels.max()) + 1)
    made = fit_projection(moments, problem.qubits, "lda", problem.shrinkage, 3.0, seed)
    return made.apply(raw[ours]), labels[ours], made.apply(raw[others]), labels[others]


def balanced(labels: Rows) -> Rows:
    """Weights of the classes: each as much in all."""
    counts = np.bincount(labels)
    return np.asarray(len(labels) / (len(counts) * counts))


def scored(probabilities: Rows, labels: Rows, weights: Rows) -> Score:
    """Score probabilities (rows, C)."""
    found = probabilities.argmax(axis=1)
    recalls = [(found[labels == c] == c).mean() for c in range(len(weights))]
    logs = np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
    own = weights[labels]
    return 100 * float(np.mean(recalls)), -float((own * logs).sum() / own.sum())


def regression(x: Rows, y: Rows, other: Rows, classes: Rows) -> Score:
    """Score a class-weighted logistic regression on the same features."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(class_weight="balanced", max_iter=2000).fit(x, y)
    return scored(fitted.predict_proba(other), classes, balanced(y))


def trained(model: Classifier, seed: int, x: Rows, y: Rows, other: Rows, classes: Rows) -> Score:
    """Train a model and score the mean of its last rounds."""
    parameters, rounds = model.initial(seed), []
    rows = TrainingData(x, y, None, balanced(y))
    for number in range(ROUNDS):
        rate = 0.05 / 2 ** (number // 5)
        train = TrainSettings(optimizer="adam", learning_rate=rate, batch_rows=ROWS)
        distill, own = DistillSettings(weight=0.0), 1000 * seed + number
        parameters = train_local(
            model, parameters, rows, train, distill, STEPS, seed=own
        ).parameters
        rounds.append(parameters)
    mean = {name: np.mean([one[name] for one in rounds[-KEPT:]], axis=0) for name in parameters}
    return scored(evaluate(model, mean, other)[0], classes, balanced(y))


if __name__ == "__main__":
    main(sys.argv[1:])
