"""The attacks that are benchmarks: their scores on known answers, and that they undo themselves."""

from __future__ import annotations

import numpy as np
import pytest

import data
from bench.attacks.lies import LIARS
from bench.attacks.members import VIEWS, found, from_moments, mean_update
from bench.attacks.poison import (
    ATTACKS,
    CLASS,
    TRIGGER,
    attacking,
    backdoored,
    flipped,
    measure,
)
from bench.attacks.rows import Gradients, invert, nearest
from bench.attacks.seen import Seen, watch
from client_app import outgoing as way_out
from core import QuantumSettings, parse_run
from data import Split
from quantum import build_classifier

ROWS = Split(("A" * 40, "C" * 40, "G" * 40), np.array([0, 1, 1]))


def test_scores_that_say_all_and_nothing() -> None:
    apart = found(np.arange(50.0) + 100, np.arange(100.0))
    assert (apart.auc, apart.tpr) == (1.0, 1.0)
    same = found(np.arange(100.0), np.arange(100.0))
    assert same.auc == 0.5
    assert same.tpr <= 0.01


def test_the_guess_that_fits_a_row_best_is_its_own() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert nearest(rows, np.array([[1.0, 0.8], [0.0, 0.1]])).tolist() == pytest.approx([0.1, 0.2])


def test_a_gradient_of_one_row_gives_the_row_away() -> None:
    settings = QuantumSettings(precision="double", qubits=4)
    classifier = build_classifier(settings, 2)
    flat = classifier.flatten(classifier.initial(3))
    gradients = Gradients(classifier, flat, np.array([1]))
    row = np.array([[0.4, -0.7, 0.9, -0.2]])
    like = np.zeros((1, 4)) + 0.05
    rng = np.random.default_rng(0)
    assert nearest(row, invert(gradients, gradients(row), like, rng, signs=False))[0] < 1e-3
    other = gradients(row) + np.random.default_rng(1).normal(size=flat.shape)
    assert nearest(row, invert(gradients, other, like, rng, signs=False))[0] > 0.1


def test_what_the_attackers_do_to_their_rows() -> None:
    assert flipped(ROWS).labels.tolist() == [1, 0, 0]
    changed = backdoored(ROWS)
    assert changed.labels.tolist() == [CLASS, 1, CLASS]
    assert [text.startswith(TRIGGER) for text in changed.texts] == [True, False, True]
    assert [len(text) for text in changed.texts] == [40] * 3
    assert ROWS.labels.tolist() == [0, 1, 1]


def test_only_the_attackers_attack_and_nothing_is_left_of_it() -> None:
    settings, _ = parse_run([], ["run.clients=10"])
    before, steps = data.load_site, way_out.STEPS
    liar, honest = LIARS[0], 0
    plain = [data.load_site(settings, k, 10)[1].train.labels for k in (liar, honest)]
    with attacking(ATTACKS["labels flipped"]):
        seen = [data.load_site(settings, k, 10)[1].train.labels for k in (liar, honest)]
    assert (seen[0] == 1 - plain[0]).all()
    assert (seen[1] == plain[1]).all()
    assert (data.load_site, way_out.STEPS) == (before, steps)


SMALL = ("data.train_rows=200", "data.test_rows=60", "data.server_rows=60", "run.rounds=2")


@pytest.fixture(scope="module")
def seen() -> Seen:
    return watch(*SMALL, "train.steps=3")


def test_a_run_is_seen_as_its_server_sees_it(seen: Seen) -> None:
    assert sorted(seen.rounds) == [1, 2]
    assert sorted(seen.rounds[1].updates) == list(range(10))
    sites, _ = [seen.site(k) for k in range(10)], seen.server()
    assert sum(map(len, sites)) <= 200
    assert len(VIEWS["groups of 3"](9)) == 3
    assert 9 in VIEWS["groups of 3"](9)
    mean = mean_update([{"a": np.array([1.0])}, {"a": np.array([3.0])}])
    assert mean["a"].tolist() == [2.0]


def test_moments_of_few_rows_give_members_away_and_sums_and_noise_hide_them(seen: Seen) -> None:
    found_of = from_moments(seen, 0.0, 0.2, 0), from_moments(seen, 16.0, 0.2, 0)
    own, hidden = (np.mean([one.auc for one in by_view["each site's"]]) for by_view in found_of)
    summed = np.mean([one.auc for one in found_of[0]["one sum of 10"]])
    assert own > 0.9
    assert abs(hidden - 0.5) < 0.12
    assert 0.5 < summed < own - 0.1


def test_an_attack_from_inside_reaches_the_sum(seen: Seen) -> None:
    secure = ("privacy.secure_aggregation=true", "train.steps=3")
    honest = measure(ATTACKS["none"], *SMALL, *secure)
    lying = measure(ATTACKS["sign flip x10"], *SMALL, *secure)
    assert lying.circuits == honest.circuits
    assert lying.accuracy != honest.accuracy
