"""The natural logarithm of every op: one float32 program, the same bits in every implementation.

In: float32. Out: float32, within 1 ULP of ln x (0.84 measured over all binades).
"""

from __future__ import annotations

import numpy as np

from driftscope_kernels.reference.arithmetic import SMALLEST_NORMAL, Float32, Operand, fma
from driftscope_kernels.reference.exp import LN2_HIGH, LN2_LOW, MANTISSA_BITS

# ln(1 + f) = f − ½f² + f³·P(f) for √½ ≤ 1 + f < √2: minimax fit of P (Remez exchange, relative
# error of the logarithm 5.8e-9, that is 0.1 · 2^-24), lowest power first.
COEFFICIENTS = tuple(
    np.float32(float.fromhex(c))
    for c in (
        "0x1.555554p-2",
        "-0x1.000228p-2",
        "0x1.99a00ap-3",
        "-0x1.547228p-3",
        "0x1.22d9e8p-3",
        "-0x1.0d8634p-3",
        "0x1.055d6ep-3",
        "-0x1.38b56cp-4",
    )
)
ROOT_HALF_BITS = np.int32(0x3F3504F3)  # the float32 next to √½
# A subnormal argument is first multiplied by 2^23, exactly, and 23 taken off the exponent.
SUBNORMAL_SCALE = np.float32(2.0**MANTISSA_BITS)


@np.errstate(all="ignore")
def log(x: Operand) -> Float32:
    """ln x. −∞ of ±0, NaN of negative numbers and of NaN, +∞ of +∞; subnormal arguments are kept.

    1. e and m with x = 2^e · m and √½ ≤ m < √2; f = m − 1 (exact); z = f · f.
    2. P by Horner's rule with fma from the highest coefficient down.
    3. y = (P · f) · z; y = fma(e, LN2_LOW, y); y = fma(−½, z, y).
    4. fma(e, LN2_HIGH, f + y).
    """
    x = np.asarray(x, np.float32)
    subnormal = (x > 0) & (x < SMALLEST_NORMAL)
    positive = np.where((x > 0) & np.isfinite(x), x, np.float32(1))
    bits = np.where(subnormal, positive * SUBNORMAL_SCALE, positive).view(np.int32)
    e = (bits - ROOT_HALF_BITS) >> MANTISSA_BITS
    f = (bits - (e << MANTISSA_BITS)).view(np.float32) - np.float32(1)
    e = (e - np.where(subnormal, MANTISSA_BITS, 0)).astype(np.float32)
    z = f * f
    p = np.full_like(f, COEFFICIENTS[-1])
    for coefficient in COEFFICIENTS[-2::-1]:
        p = fma(p, f, coefficient)
    y = fma(e, LN2_LOW, (p * f) * z)
    y = fma(np.float32(-0.5), z, y)
    result = fma(e, LN2_HIGH, f + y)
    result = np.where(x == 0, np.float32(-np.inf), result)
    result = np.where(x == np.inf, x, result)
    return np.where((x < 0) | np.isnan(x), np.float32(np.nan), result)
