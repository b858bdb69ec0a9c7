"""RMSNorm, alone and with the residual added, and its gradients.

In: x [..., K], weight [K], one dtype, eps. Out: [..., K] in that dtype. Zhang and Sennrich (2019).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.options import NormOptions
from driftscope_kernels.reference.arithmetic import Float32, column_dot, fma, fold, lane_dot
from driftscope_kernels.reference.arrays import rounded, rounded_float32, widened


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, options: NormOptions) -> Tensor:
    """x·r·weight with r = 1 / √(Σx²/K + eps), r by an exact root and an exact division."""
    wide = _rows(x)
    return rounded(_normed(wide, weight, eps, options), x.dtype).reshape(x.shape)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, options: NormOptions
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual, and x + residual rounded to the dtype."""
    total, read = _sums(x, residual, options)
    normed = rounded(_normed(read, weight, eps, options), x.dtype)
    return normed.reshape(x.shape), rounded(total, x.dtype).reshape(x.shape)


def rms_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """dx in the dtype of x, dweight in float32 [K]; `carry` [K] float32 as for a linear layer."""
    wide = _rows(x)
    dx, dweight = _gradients(widened(dy).reshape(wide.shape), wide, weight, eps, options, carry)
    return rounded(dx, x.dtype).reshape(x.shape), rounded(dweight, torch.float32)


def add_rms_norm_backward(
    dy: Tensor,
    dtotal: Tensor,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    options: NormOptions,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradient of x, which is that of the residual too, and of the weight in float32 [K].

    `dtotal` is the gradient of the sum that was handed on. It is added in float32, one rounding.
    """
    _, read = _sums(x, residual, options)
    dx, dweight = _gradients(widened(dy).reshape(read.shape), read, weight, eps, options, carry)
    with np.errstate(all="ignore"):
        dx = dx + widened(dtotal).reshape(read.shape)
    return rounded(dx, x.dtype).reshape(x.shape), rounded(dweight, torch.float32)


def _rows(x: Tensor) -> Float32:
    return widened(x).reshape(x.shape[:-1].numel(), x.shape[-1])


@np.errstate(all="ignore")
def _sums(x: Tensor, residual: Tensor, options: NormOptions) -> tuple[Float32, Float32]:
    """x + residual in float32 [rows, K], and what of it the norm reads."""
    total = _rows(x) + _rows(residual)
    exact = options.norm_reads == "float32_sum"
    return total, total if exact else rounded_float32(total, x.dtype)


@np.errstate(all="ignore")
def inverse_rms(x: Float32, eps: float) -> Float32:
    """[rows, 1]: sum of squares by `lane_dot`, divided by K, plus eps, root, reciprocal."""
    mean_square = lane_dot(x, x) / np.float32(x.shape[1])
    inverse: Float32 = np.float32(1) / np.sqrt(mean_square + np.float32(eps))
    return inverse[:, None]


@np.errstate(all="ignore")
def _normed(x: Float32, weight: Tensor, eps: float, options: NormOptions) -> Float32:
    unit = x * inverse_rms(x, eps)
    if options.weight_multiply == "after_cast":
        unit = rounded_float32(unit, weight.dtype)
    return unit * widened(weight)


@np.errstate(all="ignore")
def _gradients(
    dy: Float32, x: Float32, weight: Tensor, eps: float, options: NormOptions, carry: Tensor | None
) -> tuple[Float32, Float32]:
    """With u = x·r and du = dy·weight: dx = r·(du − u·(Σ du·u / K)), dweight = Σ_rows dy·u."""
    r = inverse_rms(x, eps)
    unit = x * r
    dunit = dy * widened(weight)
    projection = lane_dot(dunit, unit) / np.float32(x.shape[1])
    dx = r * fma(-unit, projection[:, None], dunit)
    seen = rounded_float32(unit, weight.dtype) if options.weight_multiply == "after_cast" else unit
    dweight = fold(
        len(x),
        lambda rows: column_dot(dy[rows], seen[rows]),
        (x.shape[1],),
        None if carry is None else widened(carry),
    )
    return dx, dweight
