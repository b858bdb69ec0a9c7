"""Rotary position embedding: pairs of elements turned by an angle. Su et al. (2021).

In: x [..., heads, D], cos and sin [..., R/2] with R ≤ D even. Out: x turned, from R on kept.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from driftscope_kernels.options import RotaryOptions
from driftscope_kernels.reference.arithmetic import Float32, fma
from driftscope_kernels.reference.arrays import rounded, rounded_float32, widened


@np.errstate(all="ignore")
def rotary(
    x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False, options: RotaryOptions
) -> Tensor:
    """o₁ = x₁·cos − x₂·sin, o₂ = x₂·cos + x₁·sin.

    The pairs are elements i and i + R/2 (GPT-NeoX, Llama), or 2i and 2i + 1 if `interleaved`.
    The gradient is the same turn by the opposite angle: rotary(dy, cos, −sin).
    """
    half = cos.shape[-1]
    if options.table == "rounded":
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    c, s = (widened(table)[..., None, :] for table in (cos, sin))
    out = widened(x).copy()
    first, second = _places(half, interleaved)
    x1, x2 = out[..., first], out[..., second]
    turned = (
        _turn(x1, c, -x2, s, x, options.arithmetic),
        _turn(x2, c, x1, s, x, options.arithmetic),
    )
    out[..., first], out[..., second] = turned
    return rounded(out, x.dtype)


def _places(half: int, interleaved: bool) -> tuple[slice, slice]:
    if interleaved:
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)


def _turn(a: Float32, c: Float32, b: Float32, s: Float32, x: Tensor, arithmetic: str) -> Float32:
    """a·c + b·s with the rounding points asked for."""
    if arithmetic == "fused":
        return fma(b, s, a * c)
    if arithmetic == "unfused":
        return a * c + b * s
    return rounded_float32(a * c, x.dtype) + rounded_float32(b * s, x.dtype)
