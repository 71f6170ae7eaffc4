"""The accountant, against closed forms and against other accountants' figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from core import Settings, parse_run
from core.accounting import (
    Releases,
    composed,
    epsilon,
    epsilon_drawn,
    epsilon_of,
    moment_multipliers,
    privacy_spent,
)
from core.formatting import describe_privacy

ON = ("privacy.dp=central", "aggregation.rule=uniform")
ROWS = (
    *("privacy.dp=local", "privacy.unit=row", "train.batch_rows=0", "llm.model=none"),
    *("distill.weight=0.0", "features.kind=kmer", "data.source=genomic"),
)
FIVE = Releases(5)


def exact(multiplier: float, delta: float) -> float:
    """Balle and Wang (2018), theorem 8: the smallest epsilon of one Gaussian release."""

    def excess(eps: float) -> float:
        a, b = 1 / (2 * multiplier), eps * multiplier
        return float(norm.cdf(a - b) - math.exp(eps) * norm.cdf(-a - b) - delta)

    return float(brentq(excess, 1e-9, 500))


@pytest.mark.parametrize("multiplier", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("releases", [1, 10])
def test_the_accountant_bounds_the_exact_value_closely(multiplier: float, releases: int) -> None:
    """T releases of multiplier z are one of z / sqrt(T)."""
    found = epsilon({multiplier: releases}, 1e-5)
    true = exact(multiplier / math.sqrt(releases), 1e-5)
    assert true <= found <= 1.25 * true


def test_nothing_released_costs_nothing_and_more_costs_more() -> None:
    assert epsilon({}, 1e-5) == epsilon({1.0: 0}, 1e-5) == 0.0
    assert epsilon({1.0: 1}, 1e-5) < epsilon({1.0: 2}, 1e-5) < epsilon({0.5: 2}, 1e-5)
    assert epsilon({1.0: 1, 2.0: 3}, 1e-5) > epsilon({1.0: 1}, 1e-5)


def test_epsilon_of_a_run() -> None:
    assert privacy_spent(Settings(), FIVE) == {}
    central = privacy_spent(parse_run([], ON)[0], FIVE)["updates"]
    local = privacy_spent(parse_run([], ["privacy.dp=local"])[0], FIVE)["updates"]
    assert central["epsilon"] == epsilon({1.0: 5}, 1e-5)
    assert local["epsilon"] == epsilon({0.5: 5}, 1e-5)  # any update in the place of any other
    found = privacy_spent(parse_run([], ["privacy.moment_noise=4"])[0], FIVE)
    assert set(found) == {"moments"}
    assert found["moments"]["epsilon"] == epsilon({2.0: 1, 4 / math.sqrt(2): 1}, 1e-5)
    assert not found["moments"]["seeded"]


@pytest.mark.parametrize(
    ("multipliers", "renyi", "numerical"),
    [
        ({1.0: 1}, 4.728507, 4.377178),
        ({0.5: 10}, 48.801693, 46.211210),
        ({4.0: 10}, 3.617100, 3.341409),
        ({9.65: 60}, 3.679893, 3.399942),
        ({4.0: 1, 8 / math.sqrt(2): 1, 9.65: 60}, 3.974913, 3.674676),
    ],
)
def test_epsilon_is_that_of_other_accountants(
    multipliers: dict[float, int], renyi: float, numerical: float
) -> None:
    """dp-accounting 0.6 at delta 1e-5: its Renyi accountant, and numerical composition (PLD)."""
    found = epsilon(multipliers, 1e-5)
    assert found == pytest.approx(renyi, abs=1e-6)
    assert numerical <= found <= 1.1 * numerical
    # Gaussian releases together are one Gaussian release: Balle and Wang once more.
    one = 1 / math.sqrt(sum(count / z**2 for z, count in multipliers.items()))
    assert exact(one, 1e-5) == pytest.approx(numerical, abs=1e-5)


@given(st.floats(0.5, 20), st.integers(1, 50), st.floats(0.5, 20), st.integers(1, 50))
def test_epsilon_of_several_releases_is_never_below_the_exact_one(
    z: float, count: int, other: float, more: int
) -> None:
    both = composed({z: count}, {other: more})
    one = 1 / math.sqrt(sum(n / m**2 for m, n in both.items()))
    assert sum(both.values()) == count + more
    assert epsilon(both, 1e-5) >= exact(one, 1e-5)


@pytest.mark.parametrize(
    ("multiplier", "size", "clients", "count", "value"),
    [(1.0, 3, 30, 10, 4.586270), (1.0, 5, 100, 20, 3.267877), (2.0, 10, 100, 50, 3.680296)],
)
def test_drawing_without_replacement_lowers_epsilon_as_dp_accounting_says(
    multiplier: float, size: int, clients: int, count: int, value: float
) -> None:
    found = epsilon_drawn(multiplier, {size: count}, clients, 1e-5)
    assert found == pytest.approx(value, abs=1e-5)
    everybody = epsilon_drawn(multiplier, {clients: count}, clients, 1e-5)
    assert everybody == pytest.approx(epsilon({multiplier: count}, 1e-5), rel=1e-9)
    assert epsilon_drawn(multiplier, {size: count, clients: 1}, clients, 1e-5) > found


@pytest.mark.parametrize(("multiplier", "size"), [(1.0, 5), (2.0, 10), (0.5, 1)])
def test_epsilon_of_a_draw_holds_for_a_pair_that_is_worst(multiplier: float, size: int) -> None:
    """One client's update is +C or -C, all others 0: the delta at epsilon, by quadrature."""
    share, half = size / 100, 0.5 / multiplier
    bound = epsilon_drawn(multiplier, {size: 1}, 100, 1e-5)

    def excess(x: float) -> float:
        rest = (1 - share) * norm.pdf(x)
        one, other = (rest + share * norm.pdf(x - at) for at in (half, -half))
        return max(0.0, float(one - math.exp(bound) * other))

    assert quad(excess, -30, 30, limit=500, points=np.linspace(-10, 10, 41))[0] <= 1e-5


def test_a_draw_counts_where_it_helps_and_never_costs() -> None:
    given = (*ON, "agent.kind=random", "privacy.noise=2")
    many, _ = parse_run([], [*given, "run.clients=100", "agent.fraction=0.05"])
    assert epsilon_of(many, Releases(20, 20)) == epsilon_drawn(1.0, {5: 20}, 100, 1e-5)
    half = epsilon_drawn(1.0, {5: 10, 100: 10}, 100, 1e-5)
    assert epsilon_of(many, Releases(20, 10)) == min(half, epsilon({2.0: 20}, 1e-5))
    few, _ = parse_run([], [*given, "run.clients=12", "agent.fraction=0.25"])
    assert epsilon_of(few, Releases(10, 10)) == epsilon({2.0: 10}, 1e-5)
    spent = privacy_spent(many, Releases(20, 20))["updates"]
    assert spent["epsilon"] == epsilon_of(many, Releases(20, 20)) < spent["epsilon_if_known"]


def test_epsilon_of_a_row_counts_steps_and_moments() -> None:
    given = (*ROWS, "privacy.noise=19.3")
    steps = Releases(60)
    alone, _ = parse_run([], given)
    assert set(privacy_spent(alone, steps)) == {"updates"}
    assert epsilon_of(alone, steps) == epsilon({9.65: 60}, 1e-5)
    both, _ = parse_run([], [*given, "privacy.moment_noise=8"])
    spent = privacy_spent(both, steps)
    total = epsilon({9.65: 60, **moment_multipliers(8.0)}, 1e-5)
    assert spent["rows"]["epsilon"] == epsilon_of(both, steps) == total
    assert total > spent["updates"]["epsilon"] > spent["moments"]["epsilon"]
    lines = describe_privacy(spent)
    assert lines[0].startswith("a row's part in updates: ")
    assert "60 steps" in lines[0]
    assert lines[2].startswith("a row's part in all: ")


def test_noise_that_can_be_removed_again_is_reported() -> None:
    for more, warned in (([], False), (["privacy.seeded=true"], True)):
        (line,) = describe_privacy(privacy_spent(parse_run([], [*ON, *more])[0], FIVE))
        assert ("none for whoever knows run.seed" in line) == warned
