"""The compiled functions as one differentiable operation of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from quantum.engines.base import EncodedRows


class Expectations(torch.autograd.Function):
    """Expectations of the read-outs, (rows, R), from slots (S,)."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, engine: Any, encoded: EncodedRows) -> Tensor:
        """Compute them."""
        ctx.engine, ctx.encoded, ctx.slots = engine, encoded, slots.detach().double().numpy()
        return torch.from_numpy(engine.evaluate(ctx.slots[None], encoded)[0]).to(slots.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        """Pull a gradient (rows, R) back to the slots."""
        found = ctx.engine.pull_back(ctx.slots, ctx.encoded, slopes.double().numpy())
        return torch.from_numpy(found).to(slopes.dtype), None, None
