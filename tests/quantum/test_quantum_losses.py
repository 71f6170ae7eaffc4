"""Loss functions against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantum.losses import cross_entropy, distillation, distilled_loss, proximal_term, soften

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
