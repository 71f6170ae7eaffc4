"""One gradient step of an execution plan as a function that autograd knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quantum.engines.exact.execution_plan import ExecutionPlan


class Expectations(torch.autograd.Function):
    """<Z> of the read-outs, shape (rows, R), of angles, encoded values and an execution plan.

    ``taped``: whether autograd is on, which inside of `forward` it never is.
    """

    @staticmethod
    def forward(
        ctx: Any, angles: Tensor, values: Tensor, plan: ExecutionPlan, taped: bool
    ) -> Tensor:
        """Run all chunks; keep the tape if there is only one and a gradient can be wanted."""
        matrices, built = plan.matrices.build(angles)
        dense, tapes = plan.build_dense(matrices)
        chunks = torch.split(values, plan.chunk_rows, dim=1)
        keep = taped and ctx.needs_input_grad[0] and len(chunks) == 1
        workspace = plan.pool.take()
        ctx.plan, ctx.chunks, ctx.angles = plan, chunks, angles
        ctx.state = matrices, built, dense, tapes
        if keep:
            z, tape = plan.run_rows(values, matrices, dense, workspace, keep)
            ctx.tape = tape, workspace
            return z.T
        ctx.tape = None
        parts = [plan.run_rows(chunk, matrices, dense, workspace, keep)[0] for chunk in chunks]
        plan.pool.give(workspace)
        return torch.cat(parts, dim=1).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        """Walk back through rows, dense matrices, groups and gates."""
        plan: ExecutionPlan = ctx.plan
        matrices, built, dense, tapes = ctx.state
        kept, workspace = ctx.tape or (None, plan.pool.take())
        ctx.tape = None  # another backward pass must not read a workspace given away
        gradient, slopes = torch.zeros_like(matrices), dense.zeros()
        start = 0
        for chunk in ctx.chunks:
            weights = slope[start : start + chunk.shape[1]].T.contiguous()
            start += chunk.shape[1]
            tape = kept or plan.run_rows(chunk, matrices, dense, workspace, keep=True)[1]
            plan.pull_rows_back(chunk, matrices, dense, tape, workspace, weights, gradient, slopes)
        plan.pool.give(workspace)
        plan.pull_dense_back(slopes, dense, tapes, matrices, gradient)
        return plan.matrices.pull_back(gradient, built, ctx.angles), None, None, None
