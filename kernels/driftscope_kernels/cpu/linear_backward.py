"""Gradients of the weight and bias of a linear layer on the CPU: the bits of the reference, fast.

In: dy [M, N] and x [M, K], one dtype. Out: as `driftscope_kernels.reference.linear_backward`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import chosen
from driftscope_kernels.cpu.linear import linear
from driftscope_kernels.cpu.rows import contiguous_rows
from driftscope_kernels.options import ROW_BLOCK
from driftscope_kernels.reference import linear_backward as reference


def linear_weight_grad(
    dy: Tensor, x: Tensor, carry: Tensor | None = None, *, isa: str | None = None
) -> Tensor:
    """As `reference.linear_backward.linear_weight_grad`; `isa` as in `cpu.linear.linear`."""
    shape = (dy.shape[1], x.shape[1])
    total = torch.zeros(shape, dtype=torch.float32) if carry is None else carry.clone()
    return add_weight_grad(dy, x, total, isa)


def add_weight_grad(dy: Tensor, x: Tensor, total: Tensor, isa: str | None) -> Tensor:
    """The blocks of rows added to `total` in place, one after another."""
    for start in range(0, len(x), ROW_BLOCK):
        rows = slice(start, start + ROW_BLOCK)
        total += linear(dy[rows].t(), x[rows].t(), out_dtype=torch.float32, isa=isa)
    return with_quiet_nan(total)


def linear_bias_grad(dy: Tensor, carry: Tensor | None = None, *, isa: str | None = None) -> Tensor:
    """As `reference.linear_backward.linear_bias_grad`."""
    operators = chosen(isa)
    if operators is None or dy.numel() == 0:
        return reference.linear_bias_grad(dy, carry)
    start = None if carry is None else carry.contiguous()
    total: Tensor = operators.column_sum.default(contiguous_rows(dy), start, ROW_BLOCK, isa or "")
    return total


def with_quiet_nan(x: Tensor) -> Tensor:
    """Every NaN of a float32 tensor made the quiet one of the contract, in place."""
    nan = x.isnan()
    return x.masked_fill_(nan, float("nan")) if nan.any() else x
