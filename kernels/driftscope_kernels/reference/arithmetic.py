"""The arithmetic of the contract in numpy: fused multiply-add, flushing, and sums in its order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from driftscope_kernels.options import LANES, ROW_BLOCK

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


@np.errstate(all="ignore")
def lane_sum(x: Float32) -> Float32:
    """Σ x: lane j adds elements j, j+16, j+32, … in this order to +0; then `merge_lanes`."""
    total = np.zeros((len(x), LANES), np.float32)
    for chunk in _chunks(x):
        total = total + chunk
    return merge_lanes(total)


@np.errstate(all="ignore")
def lane_dot(x: Float32, y: Float32) -> Float32:
    """Σ x·y: as `lane_sum`, each step one fma(x, y, lane)."""
    total = np.zeros((len(x), LANES), np.float32)
    for a, b in zip(_chunks(x), _chunks(y), strict=True):
        total = fma(a, b, total)
    return merge_lanes(total)


def merge_lanes(total: Float32) -> Float32:
    """Lane i + lane i+8 for i < 8, then i + (i+4), i + (i+2), i + (i+1)."""
    while (half := total.shape[1] // 2) > 0:
        total = total[:, :half] + total[:, half:]
    merged: Float32 = total[:, 0]
    return merged


def row_max(x: Float32) -> Float32:
    """Largest element of each row, −∞ of an empty row, NaN if there is one: order plays no part."""
    largest: Float32 = np.max(x, axis=1, initial=np.float32(-np.inf))
    return largest


def _chunks(x: Float32) -> list[Float32]:
    """Columns in groups of 16, an incomplete last one padded with +0."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % LANES)))
    return [padded[:, i : i + LANES] for i in range(0, padded.shape[1], LANES)]


@np.errstate(all="ignore")
def fold(
    rows: int,
    block: Callable[[slice], Float32],
    shape: tuple[int, ...],
    carry: Float32 | None,
) -> Float32:
    """((carry + b₀) + b₁) + …, carry +0 if none is given; each b is summed from +0 on its own."""
    total = np.zeros(shape, np.float32) if carry is None else carry
    for start in range(0, rows, ROW_BLOCK):
        total = total + block(slice(start, min(start + ROW_BLOCK, rows)))
    return total


def column_dot(x: Float32, y: Float32) -> Float32:
    """Σ over rows of x·y for each column: one fma per row, in order, from +0."""
    total = np.zeros(x.shape[1], np.float32)
    for a, b in zip(x, y, strict=True):
        total = fma(a, b, total)
    return total


@np.errstate(all="ignore")
def column_sum(x: Float32) -> Float32:
    """Σ over rows of x for each column, in order, from +0."""
    total = np.zeros(x.shape[1], np.float32)
    for row in x:
        total = total + row
    return total
