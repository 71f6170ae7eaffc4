"""Outer products of cells' states: row by row, a complex product, in any order of the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interleaving:
    """How the axes of two factors lie in their product.

    Attributes
    ----------
    left, right : tuple of int
        Sizes of the product's axes, 1 where the axis belongs to the other factor.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]


def interleave(left: Sequence[int], right: Sequence[int], order: Sequence[int]) -> Interleaving:
    """Plan a product whose axes are in the given order of qubits; the factors' keep theirs."""
    sizes: tuple[list[int], list[int]] = ([], [])
    owner_before = -1
    for wire in (wire for wire in order if wire in left or wire in right):
        owner = int(wire in right)
        if owner == owner_before:
            sizes[owner][-1] *= 2
        else:
            sizes[owner].append(2)
            sizes[1 - owner].append(1)
        owner_before = owner
    return Interleaving(tuple(sizes[0]), tuple(sizes[1]))


def multiply(left: Tensor, right: Tensor, plan: Interleaving, product: Tensor) -> Tensor:
    """Outer product of states.

    Parameters
    ----------
    left, right : torch.Tensor, shapes (2, A, rows) and (2, B, rows)
        States as real and imaginary parts.
    plan : Interleaving
        Order of the axes.
    product : torch.Tensor, shape (2, A B, rows)
        Where to put the product.

    Returns
    -------
    torch.Tensor
        The product.
    """
    a, b = _views(left, right, plan)
    real, imaginary = product.view(_common_shape(a, b))
    torch.mul(a[0], b[0], out=real).addcmul_(a[1], b[1], value=-1.0)
    torch.mul(a[0], b[1], out=imaginary).addcmul_(a[1], b[0])
    return product


def pull_product_back(
    slope: Tensor, left: Tensor, right: Tensor, plan: Interleaving, scratch: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients to both factors, from that to the product, shapes as in `multiply`.

    ``scratch`` has the shape of ``slope`` and is overwritten.
    """
    a, b = _views(left, right, plan)
    rows = left.shape[2]
    real, imaginary = slope.view(_common_shape(a, b))
    to_left = _conjugate_product(real, imaginary, b, plan.left, scratch)
    to_right = _conjugate_product(real, imaginary, a, plan.right, scratch)
    return (
        to_left.view(2, left.shape[1], -1, rows).sum(2),
        to_right.view(2, right.shape[1], -1, rows).sum(2),
    )


def _views(left: Tensor, right: Tensor, plan: Interleaving) -> tuple[Tensor, Tensor]:
    """Both factors with the product's axes, the last one merged with the rows.

    Whoever does not own the last axis is copied along it: little memory, and it makes the long
    contiguous runs that element-wise kernels need when there are few rows.
    """
    rows = left.shape[2]
    last = max(plan.left[-1], plan.right[-1])
    views = []
    for factor, sizes in ((left, plan.left), (right, plan.right)):
        view = factor.view(2, *sizes, rows).expand(2, *sizes[:-1], last, rows)
        views.append(view.reshape(2, *sizes[:-1], last * rows))
    return views[0], views[1]


def _common_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    return tuple(max(pair) for pair in zip(a.shape, b.shape, strict=True))


def _conjugate_product(
    real: Tensor, imaginary: Tensor, factor: Tensor, kept: tuple[int, ...], scratch: Tensor
) -> Tensor:
    """Sum of ``slope conj(factor)`` over the axes that are not kept, but for the last.

    They are brought to the front on the way, so that the sum is a product with ones.
    """
    summed = [axis for axis, size in enumerate(kept[:-1]) if size == 1]
    order = [*summed, *(axis for axis, size in enumerate(kept[:-1]) if size > 1), real.dim() - 1]
    real, imaginary = real.permute(order), imaginary.permute(order)
    first, second = (part.permute(order) for part in factor)
    terms = scratch.view(2, *real.shape)
    torch.mul(real, first, out=terms[0]).addcmul_(imaginary, second)
    torch.mul(imaginary, first, out=terms[1]).addcmul_(real, second, value=-1.0)
    count = math.prod(real.shape[: len(summed)])
    return real.new_ones(1, count) @ terms.view(2, count, -1)
