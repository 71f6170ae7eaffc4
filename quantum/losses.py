"""Loss functions: pure functions of torch tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

UNLABELLED = -1


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Class-weighted cross-entropy.

    ``sum_r w[y_r] (-log q_r[y_r]) / sum_r w[y_r]`` over the rows with a label, with q the softmax
    of the logits; zero where no row has one.

    Parameters
    ----------
    logits : torch.Tensor, shape (rows, C)
        Logits.
    labels : torch.Tensor, shape (rows,), int64
        Classes; -1: a row without a label.
    class_weights : torch.Tensor, shape (C,), optional
        Weights w; None: all one.

    Returns
    -------
    torch.Tensor, scalar
        The loss in nats.
    """
    if not bool((labels != UNLABELLED).any()):
        return 0.0 * logits.sum()
    return F.cross_entropy(logits, labels, weight=class_weights, ignore_index=UNLABELLED)


def row_weights(labels: Tensor, soft_labels: Tensor, class_weights: Tensor | None) -> Tensor | None:
    """Weights of the rows in the divergence, as fair to classes as the cross-entropy's.

    Parameters
    ----------
    labels : torch.Tensor, shape (rows,), int64
        Classes; -1: a row without a label.
    soft_labels : torch.Tensor, shape (rows, C)
        The teacher's probabilities p, not softened.
    class_weights : torch.Tensor, shape (C,), optional
        Weights w.

    Returns
    -------
    torch.Tensor, shape (rows,), or None
        ``w[y_r]``, and ``1 / sum_c (p_rc / w_c)`` of a row without a label; None: all one. Soft
        labels follow the weights, p_c ~ t_c w_c with t the teacher's: that is ``sum_c t_c w_c``,
        the mean of w[y] over the row's possible labels.
    """
    if class_weights is None:
        return None
    own = class_weights[labels.clamp_min(0)]
    mean = 1 / (soft_labels / class_weights.clamp_min(torch.finfo(own.dtype).tiny)).sum(dim=-1)
    return torch.where(labels == UNLABELLED, mean, own)


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Soften distributions: ``softmax(log p / tau)``, shape kept; tau = 1 changes nothing.

    Probabilities of zero are lifted to the smallest normal number of their type.
    """
    floor = torch.finfo(probabilities.dtype).tiny
    return torch.softmax(probabilities.clamp_min(floor).log() / temperature, dim=-1)


def distillation(
    logits: Tensor, soft_labels: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Divergence from the teacher: ``tau^2 KL(p_tau || q_tau)``, weighted mean over rows.

    p_tau are the teacher's softened soft labels, q_tau the softmax of ``logits / tau``; the
    factor tau^2 keeps the gradient's size independent of tau (Hinton et al., arXiv 1503.02531).

    Parameters
    ----------
    logits : torch.Tensor, shape (rows, C)
        Student's logits.
    soft_labels : torch.Tensor, shape (rows, C)
        Teacher's probabilities.
    temperature : float
        tau > 0.
    weights : torch.Tensor, shape (rows,), optional
        Weights of the rows; None: all one.

    Returns
    -------
    torch.Tensor, scalar
        Zero exactly when both distributions agree.
    """
    target = soften(soft_labels, temperature)
    student = torch.log_softmax(logits / temperature, dim=-1)
    divergence = (torch.xlogy(target, target) - target * student).sum(dim=-1)
    mean = divergence.mean() if weights is None else (weights * divergence).sum() / weights.sum()
    return temperature**2 * mean


def distilled_loss(
    logits: Tensor,
    labels: Tensor,
    soft_labels: Tensor | None,
    weight: float,
    temperature: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Local loss: ``(1 - lambda) CE(y, q) + lambda tau^2 KL(p_tau || q_tau)``.

    Class weights count in both terms; a row without a label in the second alone.

    Parameters
    ----------
    logits : torch.Tensor, shape (rows, C)
        Student's logits.
    labels : torch.Tensor, shape (rows,), int64
        Classes; -1: a row without a label.
    soft_labels : torch.Tensor, shape (rows, C), or None
        Teacher's probabilities; needed when ``weight`` > 0.
    weight : float
        lambda in [0, 1]; 0 gives the cross-entropy exactly.
    temperature : float
        tau > 0.
    class_weights : torch.Tensor, shape (C,), optional
        Weights of the classes.

    Returns
    -------
    torch.Tensor, scalar
        The loss.

    Raises
    ------
    ValueError
        If ``weight`` > 0 and there are no soft labels.
    """
    if weight == 0.0:
        return cross_entropy(logits, labels, class_weights)
    if soft_labels is None:
        raise ValueError(f"distillation weight is {weight}, but there are no soft labels.")
    hard = cross_entropy(logits, labels, class_weights)
    shares = row_weights(labels, soft_labels, class_weights)
    return (1.0 - weight) * hard + weight * distillation(logits, soft_labels, temperature, shares)


def teacher_similarity(hidden: Tensor) -> Tensor:
    """How alike rows are to the teacher: ``(1 + cos(h_i, h_j)) / 2``.

    Parameters
    ----------
    hidden : torch.Tensor, shape (rows, d)
        Hidden states h, less the mean of all training rows: they all point much the same way,
        and every pair would count as alike.

    Returns
    -------
    torch.Tensor, shape (rows, rows)
        In [0, 1], each row divided by its length. A state of zero is halfway to all.
    """
    units = F.normalize(hidden, dim=1)
    return F.normalize((1 + units @ units.T) / 2, dim=1)


def readout_similarity(z: Tensor) -> Tensor:
    """How alike rows are to the read-outs: ``mean_r (1 + z_ir z_jr) / 2``.

    It is the overlap Tr(rho_i rho_j) of a read-out qubit's states as Z sees them, (1 +- z) / 2 on
    the diagonal. The plain Gram matrix z z^T will not do: with one read-out its normalised rows
    are sign(z_i) z / |z|, which tell the sign of z_i and jump where that changes.

    Parameters
    ----------
    z : torch.Tensor, shape (rows, R)
        Expectations.

    Returns
    -------
    torch.Tensor, shape (rows, rows)
        In [0, 1], each row divided by its length; smooth in z.
    """
    return F.normalize((1 + z @ z.T / z.shape[1]) / 2, dim=1)


def feature_distillation(z: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation: ``||G_T - G_S||_F^2 / rows^2``.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation" (arXiv 1907.09682, eq. 4), with
    the similarities of `teacher_similarity` and `readout_similarity`. It compares rows with rows,
    so it needs neither a map between the two spaces nor a further circuit.

    Parameters
    ----------
    z : torch.Tensor, shape (rows, R)
        Expectations.
    teacher : torch.Tensor, shape (rows, rows)
        G_T.

    Returns
    -------
    torch.Tensor, scalar
        In [0, 2 / rows].
    """
    return (teacher - readout_similarity(z)).square().sum() / len(z) ** 2


def proximal_term(theta: Tensor, anchor: Tensor, weight: float) -> Tensor:
    """FedProx's term ``(mu / 2) ||theta - anchor||^2`` (Li et al., arXiv 1812.06127, eq. 2).

    Parameters
    ----------
    theta, anchor : torch.Tensor, shape (D,)
        All trainable parameters, now and at the start of the round.
    weight : float
        mu >= 0.

    Returns
    -------
    torch.Tensor, scalar
        The squared distance, halved and weighted.
    """
    return 0.5 * weight * (theta - anchor).square().sum()
