"""exp, expm1 and log as polynomials whose parts the terms share."""

from __future__ import annotations

import math

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.float_bits import bits_of, fma, from_bits
from driftscope_probes.mismatch.fused.layouts import EXPONENT_BIAS, MANTISSA_BITS

# x = k·ln 2 + rest with |rest| <= ½ ln 2; ln 2 in two pieces, the first with 21 trailing zero bits
# so that k times it is exact (fdlibm).
PER_LN_2 = 1.0 / math.log(2.0)
LN_2_HIGH = 6.93147180369123816490e-01
LN_2_LOW = 1.90821492927058770002e-10

# Adding it leaves a number's nearest integer in the low bits of the sum.
ROUNDER = 1.5 * 2.0**52
ROUNDER_BITS = 0x4338000000000000

# 1023·ln 2 + 0.21: up to here 2^k is finite, and the rest is above 0, so that 2^k = inf beyond it
# gives inf and no NaN. exp() would still be finite up to 709.78.
OVERFLOWS_ABOVE = 709.3

# (cosh y − 1) / y² and (sinh y − y) / y³ as polynomials in y² up to (½ ln 2)², fitted at
# Chebyshev's points: relative errors 2.1e-16 and 4.8e-17, of which exp and expm1 see a tenth.
E0, E1, E2, E3, E4 = (
    0.5000000000000001,
    0.041666666666624164,
    0.0013888888917196727,
    2.480152132235549e-05,
    2.7620075886265763e-07,
)
O0, O1, O2, O3, O4 = (
    0.16666666666666669,
    0.008333333333330065,
    0.00019841269863040553,
    2.755726848029987e-06,
    2.5100375837392465e-08,
)


@inlined
def reduced(x: float) -> tuple[int, float]:
    """(biased k, rest) of |x| <= OVERFLOWS_ABOVE; k is 0 and the rest is x up to ½ ln 2."""
    rounded = fma(x, PER_LN_2, ROUNDER)
    k = rounded - ROUNDER
    return bits_of(rounded), fma(k, -LN_2_LOW, fma(k, -LN_2_HIGH, x))


@inlined
def power_of_two(biased: int) -> float:
    """2^k, 0 for k = −1023. The shift drops all bits of the rounder but its lowest, which are 0."""
    return from_bits((biased + EXPONENT_BIAS) << MANTISSA_BITS)


@inlined
def inverse_power_of_two(biased: int) -> float:
    return from_bits((EXPONENT_BIAS - biased) << MANTISSA_BITS)


@inlined
def series(square: float) -> tuple[float, float]:
    """The even part, and the odd part over y, of (exp(y) − 1 − y) / y²; square is y².

    Estrin's grouping: the shorter chain of dependent steps, as the loops around it wait on those.
    """
    z, fourth = square, square * square
    even = fma(fourth, fma(fourth, E4, fma(z, E3, E2)), fma(z, E1, E0))
    odd = fma(fourth, fma(fourth, O4, fma(z, O3, O2)), fma(z, O1, O0))
    return even, odd


@inlined
def exp_and_expm1(x: float) -> tuple[float, float]:
    """(exp(x), expm1(x)); 0 and −1 below −709.1, infinite above OVERFLOWS_ABOVE."""
    biased, rest = reduced(min(max(x, -OVERFLOWS_ABOVE), OVERFLOWS_ABOVE))
    square = rest * rest
    even, odd = series(square)
    curved = fma(square, fma(rest, odd, even), rest)
    scale = math.inf if x > OVERFLOWS_ABOVE else power_of_two(biased)
    return fma(scale, curved, scale), fma(scale, curved, scale - 1.0)


# fdlibm's e_log.c, fitted up to |s| = 0.1716 to within 2⁻⁵⁸. At |s| = 0.2, where mantissas between
# 2/3 and 3/2 lead, it is off by 2⁻⁵⁵: a small part of a unit in the last place of the logarithm.
L1 = 6.666666666666735130e-01
L2 = 3.999999999940941908e-01
L3 = 2.857142874366239149e-01
L4 = 2.222219843214978396e-01
L5 = 1.818357216161805012e-01
L6 = 1.531383769920937332e-01
L7 = 1.479819860511658591e-01


@inlined
def log_series(square: float) -> float:
    """R with ln((1 + s) / (1 − s)) = 2s + s·s²·R, for |s| <= 0.2; square is s²."""
    z, fourth = square, square * square
    low, middle, high = fma(z, L2, L1), fma(z, L4, L3), fma(z, L6, L5)
    return fma(fourth, fma(fourth, fma(fourth, L7, high), middle), low)
