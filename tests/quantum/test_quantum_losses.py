"""Loss functions against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from quantum.losses import (
    cross_entropy,
    distillation,
    distilled_loss,
    feature_distillation,
    proximal_term,
    readout_similarity,
    soften,
    teacher_similarity,
)

LOG3 = math.log(3.0)


def test_cross_entropy_by_hand() -> None:
    """q = (1/4, 3/4): -log 1/4 for label 0, -log 3/4 for label 1."""
    logits = torch.tensor([[0.0, LOG3], [0.0, LOG3]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    losses = (math.log(4.0), math.log(4.0 / 3.0))
    assert cross_entropy(logits, labels).item() == pytest.approx(sum(losses) / 2)
    weighted = cross_entropy(logits, labels, torch.tensor([3.0, 1.0], dtype=torch.float64))
    assert weighted.item() == pytest.approx((3 * losses[0] + losses[1]) / 4)


def test_divergence_by_hand() -> None:
    """p = (3/4, 1/4) against uniform q: log 2 - H(p); at tau = 2 the odds 3 become sqrt 3."""
    soft = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    logits = torch.zeros(1, 2, dtype=torch.float64)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert distillation(logits, soft, 1.0).item() == pytest.approx(math.log(2) - entropy)
    p = math.sqrt(3) / (1 + math.sqrt(3))
    softened = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert distillation(logits, soft, 2.0).item() == pytest.approx(4 * (math.log(2) - softened))


def test_soften_keeps_temperature_one_and_zero_probabilities() -> None:
    p = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(soften(p, 1.0), p)
    assert torch.isfinite(distillation(torch.zeros(2, 3, dtype=torch.float64), p, 2.0))


@given(
    st.lists(st.floats(-8, 8), min_size=6, max_size=6),
    st.lists(st.floats(-8, 8), min_size=6, max_size=6),
    st.floats(0.5, 5),
)
def test_divergence_is_zero_when_equal_and_never_negative(
    first: list[float], second: list[float], tau: float
) -> None:
    a = torch.tensor(first, dtype=torch.float64).reshape(2, 3)
    b = torch.tensor(second, dtype=torch.float64).reshape(2, 3)
    assert distillation(a, torch.softmax(a, 1), tau).item() == pytest.approx(0.0, abs=1e-9)
    assert distillation(a, torch.softmax(b, 1), tau).item() >= -1e-9


def test_weight_zero_is_the_cross_entropy_exactly_and_one_the_divergence() -> None:
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), [0, 1, 2, 0, 1]
    target = torch.tensor(labels)
    soft = torch.softmax(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), 1)
    assert torch.equal(
        distilled_loss(logits, target, soft, 0.0, 2.0), cross_entropy(logits, target)
    )
    torch.testing.assert_close(
        distilled_loss(logits, target, soft, 1.0, 2.0), distillation(logits, soft, 2.0)
    )
    half = distilled_loss(logits, target, soft, 0.5, 2.0)
    expected = (cross_entropy(logits, target) + distillation(logits, soft, 2.0)) / 2
    torch.testing.assert_close(half, expected)


def test_teacher_changes_the_gradient() -> None:
    """Published defect 3: there was no KL term. Its gradient in the logits is tau (q - p)."""
    logits = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    soft = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    label, tau, weight = torch.tensor([0]), 2.0, 0.3
    (hard,) = torch.autograd.grad(cross_entropy(logits, label), logits)
    (both,) = torch.autograd.grad(distilled_loss(logits, label, soft, weight, tau), logits)
    pull = tau * (torch.softmax(logits / tau, 1) - soften(soft, tau))
    torch.testing.assert_close(both, ((1 - weight) * hard + weight * pull).detach())
    assert (both - hard).abs().max() > 0.1


def test_missing_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no soft labels"):
        distilled_loss(torch.zeros(1, 2), torch.tensor([0]), None, 0.3, 2.0)


def test_proximal_term_by_hand() -> None:
    theta = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    anchor = torch.tensor([0.0, 2.0, 5.0])
    value = proximal_term(theta, anchor, 0.4)
    value.backward()
    assert value.item() == pytest.approx(0.2 * (1 + 0 + 4))
    assert theta.grad is not None
    torch.testing.assert_close(theta.grad, 0.4 * (theta.detach() - anchor))


def test_similarities_by_hand() -> None:
    """Opposite states: cosines 1 and -1, so each row is like itself only; one read-out likewise."""
    opposite = torch.tensor([[3.0, 4.0], [-6.0, -8.0]], dtype=torch.float64)
    torch.testing.assert_close(teacher_similarity(opposite), torch.eye(2, dtype=torch.float64))
    right = torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    rows = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64) / math.sqrt(5)
    torch.testing.assert_close(teacher_similarity(right), rows)
    z = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    torch.testing.assert_close(readout_similarity(z), torch.eye(2, dtype=torch.float64))
    # Three read-outs: the means of products are 1, 0 and 2/3.
    z = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    raw = torch.tensor([[1.0, 0.5], [0.5, 5 / 6]], dtype=torch.float64)
    torch.testing.assert_close(readout_similarity(z), raw / raw.norm(dim=1, keepdim=True))


def test_feature_distillation_by_hand() -> None:
    """G_T = 1 against equal read-outs, whose rows are (1, 1) / sqrt 2."""
    teacher = torch.eye(2, dtype=torch.float64)
    same = torch.ones(2, 1, dtype=torch.float64)
    root = 1 / math.sqrt(2)
    expected = (2 * (1 - root) ** 2 + 2 * root**2) / 4
    assert feature_distillation(same, teacher).item() == pytest.approx(expected)
    assert feature_distillation(torch.tensor([[1.0], [-1.0]]).double(), teacher).item() == 0.0


@given(
    st.lists(st.floats(-1, 1), min_size=10, max_size=10),
    st.lists(st.floats(-9, 9), min_size=15, max_size=15),
    st.integers(1, 2),
)
def test_feature_distillation_against_a_loop(
    values: list[float], states: list[float], readouts: int
) -> None:
    """Second method: one pair after the other, in plain Python."""
    z = torch.tensor(values, dtype=torch.float64).reshape(-1, readouts)[:5]
    hidden = torch.tensor(states, dtype=torch.float64).reshape(5, 3)

    def cosine(a: list[float], b: list[float]) -> float:
        size = math.hypot(*a) * math.hypot(*b)
        return sum(x * y for x, y in zip(a, b, strict=True)) / size if size > 1e-9 else 0.0

    def rows(pair: Callable[[int, int], float]) -> list[list[float]]:
        raw = [[pair(i, j) for j in range(5)] for i in range(5)]
        return [[value / math.hypot(*row) for value in row] for row in raw]

    h, q = hidden.tolist(), z.tolist()
    # A length near zero is floored, see torch's normalize.
    assume(min(math.hypot(*row) for row in h) >= 1e-3 or not any(map(any, h)))
    ours = rows(lambda i, j: (1 + float(np.dot(q[i], q[j])) / readouts) / 2)
    theirs = rows(lambda i, j: (1 + cosine(h[i], h[j])) / 2)
    expected = sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(5) for j in range(5)) / 25
    loss = feature_distillation(z, teacher_similarity(hidden))
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert 0 <= loss.item() <= 2 / 5


def test_states_of_zero_are_halfway_to_all_and_slopes_stay_finite() -> None:
    torch.testing.assert_close(teacher_similarity(torch.zeros(4, 3)), torch.full((4, 4), 0.5))
    z = torch.zeros(4, 1, requires_grad=True)
    feature_distillation(z, teacher_similarity(torch.eye(4))).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
