"""SwiGLU: silu(gate)·up, and its gradients. Shazeer (2020).

In: gate and up, one shape and dtype. Out: the same shape and dtype.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from driftscope_kernels.options import SwigluOptions
from driftscope_kernels.reference.arithmetic import fma
from driftscope_kernels.reference.arrays import rounded, rounded_float32, widened
from driftscope_kernels.reference.exp import exp

ONE = np.float32(1)


@np.errstate(all="ignore")
def swiglu(gate: Tensor, up: Tensor, *, options: SwigluOptions) -> Tensor:
    """gate / (1 + exp(−gate)), rounded or not, times up."""
    g = widened(gate)
    silu = g / (ONE + exp(-g))
    if options.silu == "rounded":
        silu = rounded_float32(silu, gate.dtype)
    return rounded(silu * widened(up), gate.dtype)


@np.errstate(all="ignore")
def swiglu_backward(
    dy: Tensor, gate: Tensor, up: Tensor, *, options: SwigluOptions
) -> tuple[Tensor, Tensor]:
    """With s = 1 / (1 + exp(−g)): dgate = (dy·up)·(s·fma(g, 1 − s, 1)), dup = dy·silu(g)."""
    g, d = widened(gate), widened(dy)
    below = ONE + exp(-g)
    s, silu = ONE / below, g / below
    if options.silu == "rounded":
        silu = rounded_float32(silu, gate.dtype)
    slope = s * fma(g, ONE - s, ONE)
    return rounded((d * widened(up)) * slope, gate.dtype), rounded(d * silu, gate.dtype)
