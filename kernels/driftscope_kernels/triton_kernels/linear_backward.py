"""Gradients of the linear layer with regard to its weight and bias as Triton kernels.

In: dy [M, N] and x [M, K], one dtype. Out: as `driftscope_kernels.reference.linear_backward`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.triton_kernels.launch import aligned
from driftscope_kernels.triton_kernels.matmul import Dot, Operand, matmul
from driftscope_kernels.triton_kernels.row_blocks import column_sums


def linear_weight_grad(
    dy: Tensor, x: Tensor, carry: Tensor | None = None, *, dot: Dot = "tensor_cores"
) -> Tensor:
    """As `reference.linear_backward.linear_weight_grad`."""
    slope, rows = aligned(dy), aligned(x)
    columns, k = slope.shape[1], rows.shape[1]
    out = rows.new_empty((columns, k), dtype=torch.float32)
    matmul(
        Operand(slope, 1, columns),
        Operand(rows, 1, k),
        out,
        rows=columns,
        columns=k,
        k=(0, len(rows)),
        initial=None if carry is None else aligned(carry),
        fold=True,
        dot=dot,
    )
    return out


def linear_bias_grad(dy: Tensor, carry: Tensor | None = None) -> Tensor:
    """As `reference.linear_backward.linear_bias_grad`."""
    return column_sums(aligned(dy), carry)
