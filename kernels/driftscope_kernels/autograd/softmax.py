"""softmax, log_softmax and logsumexp, differentiable.

In: x of any shape and stride. Out: its dtype, by the contracts of the names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import positive_dim, require_same_dtype
from driftscope_kernels.registry import implementation


class _SoftmaxFamily(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, x: Tensor, dim: int) -> Any:
        ctx.save_for_backward(x)
        ctx.op, ctx.dim = op, dim
        return implementation(op, x.dtype)(x, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return None, implementation(f"{ctx.op}_backward", x.dtype)(dy, x, ctx.dim), None


_apply: Callable[..., Any] = _SoftmaxFamily.apply


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) / Σ exp(x) along `dim`; NaN throughout where there is a NaN, +∞ or only −∞."""
    return _family("softmax", x, dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """x − log Σ exp(x) along `dim`, nats."""
    return _family("log_softmax", x, dim)


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """log Σ exp(x) along `dim`, which is dropped."""
    return _family("logsumexp", x, dim)


def _family(op: str, x: Tensor, dim: int) -> Tensor:
    require_same_dtype(op, x=x)
    y: Tensor = _apply(op, x, positive_dim(op, x, dim))
    return y
