"""rms_norm and add_rms_norm, differentiable.

In: x [..., K] and weight [K] of one dtype. Out: the same dtype, by the contracts of the names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import (
    ArgumentError,
    carry,
    delivered,
    require_dims,
    require_same_dtype,
    require_shape,
)
from driftscope_kernels.options import VLLM, NormOptions
from driftscope_kernels.registry import implementation


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, options: NormOptions) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.options = eps, options
        return implementation("rms_norm", x.dtype)(x, weight, eps, options=options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        run = implementation("rms_norm_backward", x.dtype)
        dx, dweight = run(dy, x, weight, ctx.eps, options=ctx.options, carry=carry(weight))
        wanted = delivered(weight, dweight) if ctx.needs_input_grad[1] else None
        return dx, wanted, None, None


class _AddRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, eps: float, options: NormOptions
    ) -> Any:
        ctx.save_for_backward(x, residual, weight)
        ctx.eps, ctx.options = eps, options
        run = implementation("add_rms_norm", x.dtype)
        return run(x, residual, weight, eps, options=options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dtotal: Tensor) -> Any:
        x, residual, weight = ctx.saved_tensors
        run = implementation("add_rms_norm_backward", x.dtype)
        dx, dweight = run(
            dy, dtotal, x, residual, weight, ctx.eps, options=ctx.options, carry=carry(weight)
        )
        wanted = delivered(weight, dweight) if ctx.needs_input_grad[2] else None
        return dx, dx, wanted, None, None


_apply_rms_norm: Callable[..., Any] = _RmsNorm.apply
_apply_add_rms_norm: Callable[..., Any] = _AddRmsNorm.apply


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, options: NormOptions = VLLM.norm) -> Tensor:
    """x / √(mean(x²) + eps)·weight over the last dimension, statistics in float32."""
    _require("rms_norm", x, weight, eps)
    y: Tensor = _apply_rms_norm(x, weight, eps, options)
    return y


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, options: NormOptions = VLLM.norm
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual, and x + residual itself rounded to the dtype."""
    _require("add_rms_norm", x, weight, eps)
    require_same_dtype("add_rms_norm", x=x, residual=residual)
    require_shape("add_rms_norm", "residual", residual, tuple(x.shape))
    normed, total = _apply_add_rms_norm(x, residual, weight, eps, options)
    return normed, total


def _require(op: str, x: Tensor, weight: Tensor, eps: float) -> None:
    require_same_dtype(op, x=x, weight=weight)
    require_dims(op, "x", x, 1)
    require_shape(op, "weight", weight, (x.shape[-1],))
    if not eps >= 0:
        raise ArgumentError(f"{op}: eps is {eps}, it has to be zero or positive")
