"""Fused multiply-add in float32, exact: round(a·b + c) with one rounding, in plain numpy.

In: float32 arrays that broadcast. Out: float32, the bits that a hardware fma gives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Operand = Float32 | np.float32
Float64 = npt.NDArray[np.float64]

# Largest magnitude that a float32 unit flushing tiny results replaces by zero: whatever rounds, to
# 24 bits and with the exponent unbounded, to less than the smallest normal number 2^-126.
TINY_AFTER_ROUNDING = 2.0**-126 - 2.0**-151
SMALLEST_NORMAL = np.float32(2.0**-126)


def fma(a: Operand, b: Operand, c: Operand) -> Float32:
    """a·b + c rounded once, to nearest even; subnormal numbers kept, NaN payload unspecified."""
    with np.errstate(all="ignore"):
        return _odd_sum(a, b, c).astype(np.float32)


def fma_flushing(a: Operand, b: Operand, c: Operand) -> Float32:
    """As `fma`, with subnormal inputs read as zero and tiny results made zero, signs kept."""
    with np.errstate(all="ignore"):
        total = _odd_sum(*(flushed(np.asarray(v, np.float32)) for v in (a, b, c)))
        tiny = np.abs(total) < TINY_AFTER_ROUNDING
        return np.where(tiny, np.copysign(0.0, total), total).astype(np.float32)


def flushed(x: Float32) -> Float32:
    """Subnormal numbers replaced by zeros of their sign."""
    return np.where(np.abs(x) < SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)


def _odd_sum(a: Operand, b: Operand, c: Operand) -> Float64:
    """a·b + c in float64, rounded to odd, so that a further rounding to float32 is the only one.

    The product of two 24-bit numbers has 48 bits: exact in float64. The sum is not, and rounding it
    to nearest before rounding it again to float32 could round twice. Rounding to odd (cut off, then
    set the last bit if anything was cut) keeps the memory of what was cut off in a bit that float32
    does not have: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums" (2008), who
    ask for 24 + 2 bits; float64 has 53. The part cut off is known exactly by Knuth's two-sum.
    """
    product = np.multiply(a, b, dtype=np.float64)
    addend = np.asarray(c, np.float64)
    total = product + addend
    virtual = total - product
    cut = (product - (total - virtual)) + (addend - virtual)
    bits = np.asarray(total).view(np.int64)
    inexact_even = np.isfinite(total) & (cut != 0) & (bits & 1 == 0)
    # One step in magnitude: away from zero if the part cut off has the sign of the sum.
    step = np.where((cut > 0) == (total > 0), 1, -1)
    odd: Float64 = (bits + np.where(inexact_even, step, 0)).view(np.float64)
    return odd
