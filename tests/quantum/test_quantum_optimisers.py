"""Optimisers against closed forms and against torch's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import TrainSettings, UserError
from quantum.training.optimisers import Gradient, run_adam, run_cobyla
from quantum.training.schedule import inverse_time, learning_rate


def differentiated(loss: Callable[[torch.Tensor, int], torch.Tensor]) -> Gradient:
    def gradient(theta: torch.Tensor, step: int) -> tuple[float, torch.Tensor]:
        leaf = theta.detach().requires_grad_(True)
        value = loss(leaf, step)
        return value.item(), torch.autograd.grad(value, leaf)[0]

    return gradient


def bowl(theta: torch.Tensor, step: int) -> torch.Tensor:
    return (theta - torch.arange(4.0)).square().sum()


def test_adam_agrees_with_torch() -> None:
    ours, losses = run_adam(differentiated(bowl), torch.full((4,), 5.0), 25, lambda step: 0.1)
    theirs = torch.full((4,), 5.0, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.1)
    for _ in range(25):
        optimiser.zero_grad()
        bowl(theirs, 0).backward()
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-5, rtol=0)
    assert len(losses) == 25
    assert losses[-1] < losses[0]


def test_adam_does_not_amplify_rounding_noise() -> None:
    noise = 1e-8
    moved, _ = run_adam(
        differentiated(lambda t, s: noise * t.sum()), torch.zeros(3), 5, lambda step: 0.1
    )
    assert moved.abs().max().item() < 0.02 * 5 * 0.1


def test_adam_first_step_has_the_size_of_the_rate() -> None:
    moved, _ = run_adam(differentiated(bowl), torch.full((4,), 9.0), 1, lambda step: 0.25)
    torch.testing.assert_close(moved, torch.full((4,), 8.75))


def test_adam_refuses_what_is_not_finite() -> None:
    with pytest.raises(UserError, match=r"loss is nan at step 0.*lower train\.learning_rate"):
        run_adam(
            differentiated(lambda t, s: (t * float("nan")).sum()),
            torch.ones(2),
            3,
            lambda step: 0.1,
        )


@given(st.integers(0, 500), st.floats(0.1, 5), st.floats(0.1, 20), st.integers(1, 200))
def test_inverse_time_closed_form(t: int, mu: float, smoothness: float, period: int) -> None:
    gamma = max(8 * smoothness / mu, period)
    assert inverse_time(t, mu, smoothness, period) == pytest.approx(2 / (mu * (t + gamma)))


def test_schedule_counts_over_rounds() -> None:
    settings = TrainSettings(
        schedule="inverse-time", mu=2.0, smoothness=5.0, steps=10, max_steps=15
    )
    assert learning_rate(settings, 30)(4) == pytest.approx(2 / (2 * (34 + 20)))
    longer = settings.model_copy(update={"max_steps": 25})  # E, the most steps of a round
    assert learning_rate(longer, 30)(4) == pytest.approx(2 / (2 * (34 + 25)))
    whole, second = learning_rate(settings, 0), learning_rate(settings, 7)
    assert [whole(7 + i) for i in range(3)] == [second(i) for i in range(3)]
    assert learning_rate(TrainSettings(learning_rate=0.3), 9)(5) == 0.3


@pytest.mark.parametrize("budget", [1, 3, 40])
def test_cobyla_keeps_its_budget_and_the_best(budget: int) -> None:
    seen: list[tuple[float, np.ndarray]] = []

    def objective(theta: np.ndarray) -> float:
        value = float(((theta - 0.5) ** 2).sum())
        seen.append((value, theta.copy()))
        return value

    best, losses, first = run_cobyla(objective, np.zeros(5), budget, 0.2)
    assert [first, *losses] == [value for value, _ in seen]
    assert len(losses) == budget
    np.testing.assert_array_equal(seen[0][1], np.zeros(5))
    lowest = min(seen, key=lambda pair: pair[0])
    np.testing.assert_array_equal(best, lowest[1])


def test_cobyla_keeps_the_start_where_nothing_is_better() -> None:
    best, losses, first = run_cobyla(lambda t: float(np.abs(t).sum()), np.zeros(3), 2, 0.2)
    np.testing.assert_array_equal(best, np.zeros(3))
    assert min(losses) > first == 0.0


def test_cobyla_refuses_what_is_not_finite() -> None:
    with pytest.raises(UserError, match="loss is inf at step 0"):
        run_cobyla(lambda theta: float("inf"), np.zeros(2), 5, 0.1)
