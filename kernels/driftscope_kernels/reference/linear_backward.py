"""Gradients of the linear layer with regard to its weight and bias.

In: dy [M, N] and x [M, K], one dtype. Out: float32, for the caller to round once to the dtype of
the parameter. (The gradient with regard to x is a linear layer: dy times the transposed weight.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.linear import chain
from driftscope_kernels.reference.row_blocks import column_sum, fold


def linear_weight_grad(dy: Tensor, x: Tensor, carry: Tensor | None = None) -> Tensor:
    """dW[n, k] = Σ_m dy[m, n]·x[m, k], float32 [N, K].

    Each block of ROW_BLOCK rows is a linear layer along m, by the contract of the dtype and without
    rounding; the blocks are added in order to `carry` [N, K] float32, or to +0.
    """
    wide_dy, wide_x = widened(dy), widened(x)
    total = fold(
        len(wide_x),
        lambda rows: chain(wide_dy[rows].T, wide_x[rows].T, x.dtype),
        (wide_dy.shape[1], wide_x.shape[1]),
        None if carry is None else widened(carry),
    )
    return rounded(total, torch.float32)


def linear_bias_grad(dy: Tensor, carry: Tensor | None = None) -> Tensor:
    """db[n] = Σ_m dy[m, n], float32 [N]: in blocks of ROW_BLOCK rows, as the weight."""
    wide = widened(dy)
    total = fold(
        len(wide),
        lambda rows: column_sum(wide[rows]),
        (wide.shape[1],),
        None if carry is None else widened(carry),
    )
    return rounded(total, torch.float32)
