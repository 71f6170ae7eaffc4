"""Theorems 6.4 to 6.6: constants and limits by hand, a known contraction, laws on a tiny run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

import bench.theory.convergence as bench
from bench.theory.convergence import CASES, bound_table, convex, law_table, picture, theorem_table
from bench.theory.convex import Sites, bound, constants_of, draw_sites, expected_shares, limit
from bench.theory.laws import (
    BASE,
    Law,
    Ran,
    circuits_by_law,
    curvature,
    fit,
    law_of,
    overhead,
    run_small,
)
from bench.theory.local_sgd import Course, Plan, _Met, aggregated, looked_at, slope, train


def line(*values: list[float], weight: float = 0.1) -> Sites:
    """Sites of one feature; a value is a row's feature times its label, -1 or 1."""
    rows = [len(of_site) for of_site in values]
    signed = np.zeros((len(rows), max(rows), 1))
    for site, of_site in enumerate(values):
        signed[site, : len(of_site), 0] = of_site
    return Sites(signed, np.array(rows), weight)


def test_constants_by_hand() -> None:
    signed = np.zeros((2, 2, 2))
    signed[0] = [[3.0, 0.0], [0.0, -1.0]]
    signed[1, 0] = [0.0, 2.0]
    sites = Sites(signed, np.array([2, 1]), 0.5)
    known = constants_of(sites)
    # Second moments diag(9/2, 1/2) and diag(0, 4).
    assert known.mu == 0.5
    assert known.smoothness == pytest.approx(4.5 / 4 + 0.5)
    assert known.condition == pytest.approx(1.625 / 0.5)
    assert [known.gamma(5), known.gamma(100)] == pytest.approx([26.0, 100.0])
    np.testing.assert_allclose(known.variance, [5.0, 4.0])
    assert known.gradient == pytest.approx(4 * 9)
    np.testing.assert_allclose(sites.shares, [2 / 3, 1 / 3])


def test_the_optimum_of_one_feature() -> None:
    sites = line([1.0, 1.0, 1.0, -1.0])
    known = constants_of(sites)
    root = brentq(lambda w: expit(w) - 0.75 + 0.1 * w, -5, 5, xtol=1e-14)
    assert known.optimum[0] == pytest.approx(root, abs=1e-12)
    least = 0.75 * np.log1p(np.exp(-root)) + 0.25 * np.log1p(np.exp(root)) + 0.05 * root**2
    assert known.least == pytest.approx(least, abs=1e-14)
    assert known.apart == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("rows", bench.ROWS.values(), ids=bench.ROWS)
def test_derivatives_and_optima_of_the_drawn_problems(rows: list[int]) -> None:
    sites = draw_sites(rows, 3)
    shares, point, small = sites.shares, np.linspace(-1, 1, 6), 1e-5
    moved = small * np.eye(6)
    slopes = (sites.loss(point + moved, shares) - sites.loss(point - moved, shares)) / (2 * small)
    np.testing.assert_allclose(sites.gradient(point, shares), slopes, atol=1e-9)
    bends = [
        (sites.gradient(point + each, shares) - sites.gradient(point - each, shares)) / (2 * small)
        for each in moved
    ]
    np.testing.assert_allclose(sites.hessian(point, shares), bends, atol=1e-9)
    known = constants_of(sites)
    assert np.linalg.norm(sites.gradient(known.optimum, shares)) < 1e-12
    assert known.apart > 0.01
    # mu and L hold at each site, here and at the optimum.
    for at in (point, known.optimum, 20 * point):
        for one in np.eye(len(rows)):
            curvatures = np.linalg.eigvalsh(sites.hessian(at, one))
            assert known.mu - 1e-12 <= curvatures[0]
            assert curvatures[-1] <= known.smoothness
    gradients, covariance = sites.noise(point)
    np.testing.assert_allclose(shares @ gradients, sites.gradient(point, shares), atol=1e-12)
    assert (np.trace(covariance, axis1=1, axis2=2) <= known.variance).all()


def test_drawn_sites_are_skewed_and_fit_the_unit_ball() -> None:
    sites = draw_sites([20, 40], 0)
    assert np.sum(sites.signed**2, axis=2).max() == pytest.approx(1)
    # The constant's sign is the label's.
    first = [np.mean(sites.signed[k, :n, -1] > 0) for k, n in enumerate(sites.rows)]
    assert first == pytest.approx([0.95, 0.05])


@pytest.mark.parametrize("period", [1, 5])
def test_a_quadratic_contracts_as_the_product_of_its_steps(period: int) -> None:
    # Rows of nothing leave mu / 2 |w|^2: a step multiplies w by (t + gamma - 2) / (t + gamma).
    sites = Sites(np.zeros((2, 1, 3)), np.array([1, 1]), 0.2)
    known = constants_of(sites)
    start = np.array([1.0, -2.0, 0.5])
    course = train(sites, known, Plan(period), 100, 2, 0, start)
    gamma, t = known.gamma(period), course.steps
    assert gamma == 8
    left = (gamma - 1) * (gamma - 2) / ((t + gamma - 1) * (t + gamma - 2))
    np.testing.assert_allclose(course.mean, 0.1 * 5.25 * left**2, rtol=1e-9, atol=1e-15)


def test_limits_by_hand() -> None:
    beta, bend = 2 / 0.1, 0.25 + 0.1
    scale = bend / 2 * beta**2 / (2 * beta * bend - 1)
    # One site with rows 1 and -1: w* = 0, a row's gradient is -1/2 or 1/2.
    both = line([1.0, -1.0])
    assert limit(both, constants_of(both), 5, None) == pytest.approx(scale / 4)
    # Two sites, a row each: nothing is noise but which of them is drawn, E steps at a time.
    apart = line([1.0], [-1.0])
    assert limit(apart, constants_of(apart), 5, None) == pytest.approx(0)
    assert limit(apart, constants_of(apart), 5, 1) == pytest.approx(5 * scale / 4)


def test_the_bound_by_hand() -> None:
    sites = line([1.0], [-1.0], [1.0], weight=0.25)
    known = replace(constants_of(sites), smoothness=0.5, apart=0.1, gradient=4.0)
    known = replace(known, variance=np.array([1.0, 2.0, 3.0]), optimum=np.array([2.0]))
    shares = np.array([0.5, 0.25, 0.25])
    found = bound(known, shares, 3, 2)
    assert found["noise"] == pytest.approx(0.25 + 2 / 16 + 3 / 16)
    assert found["apart"] == pytest.approx(0.3)
    assert found["drift"] == pytest.approx(8 * 4 * 4)
    assert found["sampling"] == pytest.approx(0.5 * 2 * 9 * 4)
    assert found["start"] == pytest.approx(0.125 * 16 * 4)
    b_and_c = 0.5625 + 0.3 + 128 + 36
    assert found["total"] == pytest.approx(2 * (2 * b_and_c / 0.25 + 8))
    met = bound(known, shares, 3, None, gradient=1.0)
    assert (met["drift"], met["sampling"]) == (32.0, 0.0)


def test_expected_shares_of_drawn_sites() -> None:
    rows = np.array([1, 3])
    np.testing.assert_allclose(expected_shares(rows, 1), [0.5, 0.5])
    np.testing.assert_allclose(expected_shares(rows, 2), [0.25, 0.75])


def test_means_are_the_strategys_and_others_are_refused() -> None:
    rng = np.random.default_rng(0)
    rows, local = np.array([[10, 20, 70]] * 2), rng.normal(size=(2, 3, 4))
    mean = 0.1 * local[:, 0] + 0.2 * local[:, 1] + 0.7 * local[:, 2]
    np.testing.assert_allclose(aggregated(local.swapaxes(0, 1), rows[0]), mean, rtol=1e-14)
    met = _Met(draw_sites([2, 2, 2], 0))
    met.compare(mean, local, rows)
    assert met.deviation < 1e-14
    with pytest.raises(RuntimeError, match="the aggregation is off by"):
        met.compare(local.mean(axis=1), local, rows)


def made_up(gaps: np.ndarray, steps: np.ndarray) -> Course:
    return Course(steps, gaps, 1.0, np.ones(1), 0.0)


def test_the_slope_of_a_made_up_course() -> None:
    steps = np.concatenate([[0], looked_at(10_000, 5) * 5])
    inverse = 3.0 / (steps + 40.0)
    exact = slope(made_up(np.tile(inverse, (20, 1)), steps), 40, 2)
    assert (exact.value, exact.low, exact.high) == pytest.approx((-1, -1, -1), abs=1e-9)
    factor = np.random.default_rng(1).gamma(3, 1 / 3, size=(40, len(steps)))
    noisy = slope(made_up(inverse * factor, steps), 40, 2)
    assert -1.1 < noisy.low < -1 < noisy.high < -0.9
    flat = slope(made_up(np.full((5, len(steps)), 0.1), steps), 40, 1)
    assert flat.value == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least 3"):
        slope(made_up(np.ones((2, 2)), np.array([0, 10])), 40, 1)


def test_training_repeats_and_own_steps_are_the_federations_where_all_train() -> None:
    sites = draw_sites([20, 40, 30], 0)
    known = constants_of(sites)
    first = train(sites, known, Plan(5), 100, 3, 7)
    np.testing.assert_array_equal(first.gaps, train(sites, known, Plan(5), 100, 3, 7).gaps)
    own = train(sites, known, Plan(5, rate="own"), 100, 3, 7)
    np.testing.assert_allclose(own.gaps, first.gaps, rtol=1e-9)
    # A site that was not drawn has taken fewer steps, so its rate is larger.
    drawn, late = (train(sites, known, Plan(5, 1, rate), 100, 3, 7) for rate in ("theorem", "own"))
    assert not np.allclose(drawn.gaps, late.gaps)
    assert (first.gaps >= -1e-15).all()
    assert first.gradient <= known.gradient
    assert (first.variance <= known.variance).all()


def test_drawing_sites_of_unequal_rows_has_a_floor() -> None:
    sites = line([1.0] * 9, [-1.0])
    known = constants_of(sites)
    biased = sites.optimum(expected_shares(sites.rows, 1))
    floor = float(sites.loss(biased, sites.shares)) - known.least
    course = train(sites, known, Plan(1, 1), 1500, 20, 0)
    assert course.mean[-1] == pytest.approx(floor, rel=0.2)
    assert train(sites, known, Plan(1), 1500, 20, 0).mean[-1] < 0.01 * floor


def test_circuits_by_law() -> None:
    site = {"train_rows": 50, "val_rows": 7}
    train_settings = {"optimizer": "auto", "steps": 3, "batch_rows": 8}
    assert circuits_by_law(train_settings, site, 10) == 3 * 8 * 21 + 7
    assert circuits_by_law({**train_settings, "batch_rows": 0}, site, 10) == 3 * 50 * 21 + 7
    assert circuits_by_law({**train_settings, "batch_rows": 64}, site, 10) == 3 * 50 * 21 + 7
    assert circuits_by_law({**train_settings, "optimizer": "spsa"}, site, 10) == 2 * 8 * 3 + 7
    assert circuits_by_law({**train_settings, "optimizer": "cobyla"}, site, 10) == 8 * 4 + 7


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_small(str(tmp_path_factory.mktemp("laws")), "data.train_rows=60")


def test_the_ledger_obeys_the_law(tiny: Ran) -> None:
    law = law_of(tiny, overhead(tiny))
    assert law.exact
    assert (law.orders, law.numbers) == (4, tiny.begun["angles"] + 2 * (4 + 1))
    assert law.circuits[0] == law.circuits[1] > 0
    assert law.bytes[0] == law.bytes[1] > 4 * 8 * law.numbers
    down, up = overhead(tiny)
    other = law_of(tiny, (down, up + 1))
    assert not other.exact
    assert other.bytes[0] == other.bytes[1] + other.orders


def test_a_line_that_breaks_the_law_is_told(tiny: Ran) -> None:
    number, client, cost = tiny.ledger.entries[-1]
    for wrong in (replace(cost, circuits=cost.circuits + 1), replace(cost, llm_tokens=5)):
        ledger = replace(tiny.ledger, entries=[*tiny.ledger.entries[:-1], (number, client, wrong)])
        law = law_of(replace(tiny, ledger=ledger), overhead(tiny))
        assert not law.exact
        assert "(!)" in law_table({"x": law})
    assert "run.clients=2" in BASE


def test_fits_and_their_share_of_the_variance() -> None:
    found = fit([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    assert (found.at_zero, found.slope, found.r2) == pytest.approx((1, 2, 1))
    assert fit([1.0, 2.0, 3.0], [1.0, 0.0, 1.0]).r2 == pytest.approx(0)


def test_the_quantum_loss_is_not_convex() -> None:
    ((least, largest),) = curvature(points=1)
    assert least < -0.1
    assert largest > least


def test_tables_and_the_picture(tmp_path: Path) -> None:
    found, courses = convex(160, 3)
    assert list(found) == [case.name for case in CASES]
    one = found["all sites, E = 5"]
    assert one.most >= one.course[0] > 0
    assert one.bound is not None
    assert one.bound_met is not None
    assert one.most < one.bound_met < one.bound["total"]
    assert found["all, E = 5, constant rate"].bound is None
    law = Law(4, 86, (10, 10), (20, 20), 4, 0)
    for table in (theorem_table(found), bound_table(found), law_table({"x": law})):
        assert len({text.count("|") for text in table.splitlines()}) == 1
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.svg", courses, {"constant": [2.0, 1.0], "other": [2.0, 1.5]})
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert len(drawn) < 150_000


def test_out_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        bench.main(["--out", str(tmp_path / "file")])
    assert "is a file; name a folder" in capsys.readouterr().err
