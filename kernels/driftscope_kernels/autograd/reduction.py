"""sum and mean over any dimensions, differentiable.

In: x of any shape and stride. Out: its dtype, by the contracts of the names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import ArgumentError, positive_dim, require_same_dtype
from driftscope_kernels.registry import implementation


class _Reduction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Any:
        ctx.op, ctx.dims, ctx.keepdim, ctx.shape = op, dims, keepdim, x.shape
        return implementation(op, x.dtype)(x, dims, keepdim=keepdim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        if not ctx.keepdim:
            for dim in ctx.dims:
                dy = dy.unsqueeze(dim)
        if ctx.op == "mean":
            n = torch.Size([ctx.shape[dim] for dim in ctx.dims]).numel()
            dy = (dy.to(torch.float32) / n).to(dy.dtype)
        return None, dy.expand(ctx.shape), None, None


_apply: Callable[..., Any] = _Reduction.apply


def sum(x: Tensor, dim: int | Sequence[int] | None = None, *, keepdim: bool = False) -> Tensor:
    """Σ x over `dim`, over everything if it is None; accumulated in float32."""
    return _reduced("sum", x, dim, keepdim)


def mean(x: Tensor, dim: int | Sequence[int] | None = None, *, keepdim: bool = False) -> Tensor:
    """Σ x / n over `dim`, over everything if it is None; NaN of nothing."""
    return _reduced("mean", x, dim, keepdim)


def _reduced(op: str, x: Tensor, dim: int | Sequence[int] | None, keepdim: bool) -> Tensor:
    require_same_dtype(op, x=x)
    asked = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = tuple(sorted(positive_dim(op, x, d) for d in asked))
    if len(set(dims)) != len(dims):
        raise ArgumentError(f"{op}: a dimension appears twice in {tuple(asked)}")
    y: Tensor = _apply(op, x, dims, keepdim)
    return y
