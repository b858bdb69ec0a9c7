"""What every Triton kernel computes with: casts, exp, log, tanh, flushing fma, merger of lanes.

In and out: blocks of float32 within a kernel. Device code: each function follows the one of its
name in `driftscope_kernels.reference`, step by step.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from driftscope_kernels import options
from driftscope_kernels.reference import arithmetic as reference_fma
from driftscope_kernels.reference import attention_tanh as reference_tanh
from driftscope_kernels.reference import exp as reference_exp
from driftscope_kernels.reference import log as reference_log

LANES = tl.constexpr(options.LANES)

LOG2_E = tl.constexpr(float(reference_exp.LOG2_E))
LN2_HIGH = tl.constexpr(float(reference_exp.LN2_HIGH))
LN2_LOW = tl.constexpr(float(reference_exp.LN2_LOW))
EXP_2, EXP_3, EXP_4, EXP_5, EXP_6 = (
    tl.constexpr(float(c)) for c in reference_exp.COEFFICIENTS
)  # EXP_i is the coefficient of r^i
LARGEST = tl.constexpr(float(reference_exp.LARGEST))
SMALLEST = tl.constexpr(float(reference_exp.SMALLEST))
MANTISSA_BITS = tl.constexpr(reference_exp.MANTISSA_BITS)
# Adding and subtracting 1.5·2^23 rounds a float32 below 2^22 to the nearest whole number, to even
# on a tie: there is no such instruction that the interpreter has too.
ROUNDER = tl.constexpr(1.5 * 2.0**23)

LOG_3, LOG_4, LOG_5, LOG_6, LOG_7, LOG_8, LOG_9, LOG_10 = (
    tl.constexpr(float(c)) for c in reference_log.COEFFICIENTS
)
ROOT_HALF_BITS = tl.constexpr(int(reference_log.ROOT_HALF_BITS))
SUBNORMAL_SCALE = tl.constexpr(float(reference_log.SUBNORMAL_SCALE))

TANH_0, TANH_1, TANH_2, TANH_3, TANH_4 = (
    tl.constexpr(float(c)) for c in reference_tanh.COEFFICIENTS
)
TANH_THRESHOLD = tl.constexpr(float(reference_tanh.THRESHOLD))

SMALLEST_NORMAL = tl.constexpr(float(reference_fma.SMALLEST_NORMAL))
TINY_AFTER_ROUNDING = tl.constexpr(reference_fma.TINY_AFTER_ROUNDING)
SIGN_BIT = tl.constexpr(-(2**31))
INFINITY = tl.constexpr(float("inf"))
NAN_FLOAT32 = tl.constexpr(0x7FC00000)
NAN_BFLOAT16 = tl.constexpr(0x7FC0)
NAN_FLOAT16 = tl.constexpr(0x7E00)


@triton.jit
def load(pointer, mask):
    """float32 of what the pointer block points to, +0 where masked out."""
    return widened(tl.load(pointer, mask=mask, other=0.0))


@triton.jit
def widened(x):
    """Exact float32. bfloat16 by its bits: the interpreter's own cast loses subnormal numbers."""
    if x.dtype == tl.bfloat16:
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def dot_added(a, b, total, WIDEN: tl.constexpr):
    """total + a·b by tl.dot, in full float32 where the operands are float32 or WIDEN."""
    if WIDEN:
        return tl.dot(widened(a), widened(b), total, input_precision="ieee")
    else:
        return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """To the dtype, to nearest even, every NaN the quiet one. bfloat16 by integers."""
    if dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        near = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        near = tl.where(x == x, near, NAN_BFLOAT16)
        return near.to(tl.int16).to(tl.bfloat16, bitcast=True)
    elif dtype == tl.float16:
        half_bits = x.to(tl.float16).to(tl.int16, bitcast=True)
        half_bits = tl.where(x == x, half_bits, NAN_FLOAT16)
        return half_bits.to(tl.int16).to(tl.float16, bitcast=True)
    else:
        same = tl.where(x == x, x.to(tl.int32, bitcast=True), NAN_FLOAT32)
        return same.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def through(x, dtype: tl.constexpr):
    """A rounding point inside an op: rounded to the dtype, and float32 again."""
    return widened(rounded(x, dtype))


@triton.jit
def divided(x, y):
    """x / y, correctly rounded: Triton's `/` is approximate."""
    return tl.div_rn(x, y)


@triton.jit
def exp(x):
    inside = tl.where(x == x, x, 0.0)
    inside = tl.minimum(tl.maximum(inside, SMALLEST), LARGEST)
    n = (inside * LOG2_E + ROUNDER) - ROUNDER
    r = tl.fma(-n, LN2_LOW, tl.fma(-n, LN2_HIGH, inside))
    p = tl.fma(EXP_6, r, EXP_5)
    p = tl.fma(p, r, EXP_4)
    p = tl.fma(p, r, EXP_3)
    p = tl.fma(p, r, EXP_2)
    p = tl.fma(p, r, 1.0)
    p = tl.fma(p, r, 1.0)
    bits = p.to(tl.int32, bitcast=True) + (n.to(tl.int32) << MANTISSA_BITS)
    result = bits.to(tl.float32, bitcast=True)
    result = tl.where(x > LARGEST, INFINITY, result)
    result = tl.where(x < SMALLEST, 0.0, result)
    return tl.where(x == x, result, x)


@triton.jit
def log(x):
    subnormal = (x > 0.0) & (x < SMALLEST_NORMAL)
    positive = tl.where((x > 0.0) & (x < INFINITY), x, 1.0)
    scaled = tl.where(subnormal, positive * SUBNORMAL_SCALE, positive)
    bits = scaled.to(tl.int32, bitcast=True)
    e = (bits - ROOT_HALF_BITS) >> MANTISSA_BITS
    f = (bits - (e << MANTISSA_BITS)).to(tl.float32, bitcast=True) - 1.0
    exponent = (e - tl.where(subnormal, MANTISSA_BITS, 0)).to(tl.float32)
    z = f * f
    p = tl.fma(LOG_10, f, LOG_9)
    p = tl.fma(p, f, LOG_8)
    p = tl.fma(p, f, LOG_7)
    p = tl.fma(p, f, LOG_6)
    p = tl.fma(p, f, LOG_5)
    p = tl.fma(p, f, LOG_4)
    p = tl.fma(p, f, LOG_3)
    y = tl.fma(exponent, LN2_LOW, (p * f) * z)
    y = tl.fma(z, -0.5, y)
    result = tl.fma(exponent, LN2_HIGH, f + y)
    result = tl.where(x == 0.0, -INFINITY, result)
    result = tl.where(x == INFINITY, INFINITY, result)
    return tl.where(x >= 0.0, result, float("nan"))


@triton.jit
def tanh(x):
    a = tl.abs(x)
    z = a * a
    p = tl.fma(TANH_4, z, TANH_3)
    p = tl.fma(p, z, TANH_2)
    p = tl.fma(p, z, TANH_1)
    p = tl.fma(p, z, TANH_0)
    small = tl.fma(p * z, a, a)
    above = exp(a + a) + 1.0
    large = 1.0 - divided(tl.zeros_like(above) + 2.0, above)
    result = tl.where(a < TANH_THRESHOLD, small, large)
    sign = x.to(tl.int32, bitcast=True) & SIGN_BIT
    return (result.to(tl.int32, bitcast=True) | sign).to(tl.float32, bitcast=True)


@triton.jit
def signed_zero(x):
    return (x.to(tl.int32, bitcast=True) & SIGN_BIT).to(tl.float32, bitcast=True)


@triton.jit
def flushed(x):
    """Subnormal numbers replaced by zeros of their sign."""
    return tl.where(tl.abs(x) < SMALLEST_NORMAL, signed_zero(x), x)


@triton.jit
def fma_flushing(a, b, c):
    """fma with subnormal inputs read as zero and tiny results made zero, signs kept.

    Tiny is decided before rounding to the subnormal grid. The float64 sum decides it: a product of
    two bfloat16 numbers is exact there, and near the threshold so is the sum.
    """
    x = flushed(a)
    y = flushed(b)
    z = flushed(c)
    total = tl.fma(x, y, z)
    exact = x.to(tl.float64) * y.to(tl.float64) + z.to(tl.float64)
    return tl.where(tl.abs(exact) < TINY_AFTER_ROUNDING, signed_zero(total), total)


@triton.jit
def _halves(x, ROWS: tl.constexpr, HALF: tl.constexpr):
    """Lanes below HALF, and those from it on: two blocks [ROWS, HALF]."""
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, HALF)), (0, 2, 1)))


@triton.jit
def merge_lanes(total, ROWS: tl.constexpr):
    """[ROWS, 16] → [ROWS, 1]: lane i + lane i+8, then i + (i+4), i + (i+2), i + (i+1)."""
    low, high = _halves(total, ROWS, 8)
    low, high = _halves(low + high, ROWS, 4)
    low, high = _halves(low + high, ROWS, 2)
    low, high = _halves(low + high, ROWS, 1)
    return low + high


@triton.jit
def merge_largest(largest, ROWS: tl.constexpr):
    """[ROWS, 16] → [ROWS, 1], NaN if there is one."""
    low, high = _halves(largest, ROWS, 8)
    low, high = _halves(tl.maximum(low, high, tl.PropagateNan.ALL), ROWS, 4)
    low, high = _halves(tl.maximum(low, high, tl.PropagateNan.ALL), ROWS, 2)
    low, high = _halves(tl.maximum(low, high, tl.PropagateNan.ALL), ROWS, 1)
    return tl.maximum(low, high, tl.PropagateNan.ALL)
