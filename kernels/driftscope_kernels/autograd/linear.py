"""linear, matmul and bmm, differentiable.

In: tensors of one dtype. Out: a tensor of that dtype, by the contract "linear".
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
from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.registry import implementation


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tp_segments: int,
        weight_pack: object,
    ) -> Any:
        ctx.save_for_backward(x, weight, bias)
        run = implementation("linear", x.dtype)
        return run(x, weight, bias, tp_segments=tp_segments, weight_pack=weight_pack)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        rows = x.shape[:-1].numel()
        rows_dy, rows_x = dy.reshape(rows, len(weight)), x.reshape(rows, x.shape[-1])
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = implementation("linear", x.dtype)(dy, weight.transpose(0, 1))
        if ctx.needs_input_grad[1]:
            run = implementation("linear_weight_grad", x.dtype)
            dweight = delivered(weight, run(rows_dy, rows_x, carry(weight)))
        if bias is not None and ctx.needs_input_grad[2]:
            run = implementation("linear_bias_grad", x.dtype)
            dbias = delivered(bias, run(rows_dy, carry(bias)))
        return dx, dweight, dbias, None, None


class _Bmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Any:
        ctx.save_for_backward(a, b)
        return implementation("bmm", a.dtype)(a, b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        a, b = ctx.saved_tensors
        run = implementation("bmm", a.dtype)
        da = run(dy, b.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        db = run(a.transpose(1, 2), dy) if ctx.needs_input_grad[1] else None
        return da, db


_apply_linear: Callable[..., Any] = _Linear.apply
_apply_bmm: Callable[..., Any] = _Bmm.apply


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    weight_pack: object = None,
    tp_segments: int = 1,
) -> Tensor:
    """x [..., K] times weight [N, K], plus bias [N]: what torch.nn.functional.linear computes.

    `tp_segments` 8 sums K in eight segments merged by a fixed tree, so that tensor parallelism
    over 1, 2, 4 or 8 ranks gives the same bits (`driftscope_kernels.reference.linear`);
    K has to be a multiple of 8 then. `weight_pack` is a weight packed before by the implementation
    in use; it changes the speed and no bit. Gradients: x row by row; weight and bias in blocks of
    64 rows (`driftscope_kernels.autograd.arguments`).
    """
    require_same_dtype("linear", x=x, weight=weight, bias=bias)
    require_dims("linear", "x", x, 1)
    require_dims("linear", "weight", weight, 2)
    require_shape("linear", "weight", weight, (weight.shape[0], x.shape[-1]))
    if bias is not None:
        require_shape("linear", "bias", bias, (len(weight),))
    if tp_segments not in (1, TP_SEGMENTS):
        raise ArgumentError(f"linear: tp_segments is {tp_segments}, 1 or {TP_SEGMENTS} is accepted")
    y: Tensor = _apply_linear(x, weight, bias, tp_segments, weight_pack)
    return y


def matmul(x: Tensor, other: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] times other [K, N], plus bias [N]: a linear layer whose weight is transposed.

    The gradient of `other` always goes to autograd, not to a `main_grad` that it may have.
    """
    require_dims("matmul", "other", other, 2)
    return linear(x, other.transpose(0, 1), bias)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """a [B, M, K] times b [B, K, N]: [B, M, N], each matrix as a linear layer.

    The gradient of b sums over all M rows in one chain: b is taken for an activation, not a weight.
    """
    require_same_dtype("bmm", a=a, b=b)
    require_shape("bmm", "a", a, (*a.shape[:2], b.shape[1] if b.dim() == 3 else -1))
    require_shape("bmm", "b", b, (a.shape[0], a.shape[2], b.shape[2]))
    y: Tensor = _apply_bmm(a, b)
    return y
