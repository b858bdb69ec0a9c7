"""The exponential of every op: one float32 program, the same bits in every implementation.

In: float32. Out: float32, within 1 ULP of e^x (0.89 measured); results below 2^-126 are +0.
"""

from __future__ import annotations

import numpy as np

from driftscope_kernels.reference.arithmetic import Float32, Operand, fma

LOG2_E = np.float32(float.fromhex("0x1.715476p+0"))
# ln 2 = LN2_HIGH + LN2_LOW to 49 bits (Cody and Waite, 1980): with fma the first step is exact.
LN2_HIGH = np.float32(float.fromhex("0x1.62e43p-1"))
LN2_LOW = np.float32(float.fromhex("-0x1.05c61p-29"))
# e^r = 1 + r + r²·q(r) on |r| ≤ ½ ln 2: minimax fit of q (Remez exchange, relative error of e^r
# 3.1e-9, that is 0.05 · 2^-24), lowest power first.
COEFFICIENTS = tuple(
    np.float32(float.fromhex(c))
    for c in (
        "0x1.fffffcp-2",
        "0x1.555492p-3",
        "0x1.5558f2p-5",
        "0x1.123a20p-7",
        "0x1.6a23d0p-10",
    )
)
# Largest x with a finite e^x: the largest float32 below ln(2^128 − 2^104).
LARGEST = np.float32(float.fromhex("0x1.62e42ep+6"))
# Smallest x whose e^x is a normal number, the first float32 above −126 ln 2; below it e^x counts as
# +0. Softmax adds such terms to 1, where they are nothing; computing them would cost every lane.
SMALLEST = np.float32(float.fromhex("-0x1.5d589ep+6"))
MANTISSA_BITS = 23


@np.errstate(all="ignore")
def exp(x: Operand) -> Float32:
    """e^x. +∞ above LARGEST, +0 below SMALLEST (−∞ included), NaN of NaN.

    1. n = rint(x · LOG2_E), to nearest even.
    2. r = fma(−n, LN2_LOW, fma(−n, LN2_HIGH, x)).
    3. q by Horner's rule with fma from the highest coefficient down, then p = fma(q, r, 1) twice.
    4. n is added to the exponent of p, which is exact.
    """
    x = np.asarray(x, np.float32)
    inside = np.clip(np.where(np.isnan(x), np.float32(0), x), SMALLEST, LARGEST)
    n = np.rint(inside * LOG2_E)
    r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, inside))
    p = np.full_like(r, COEFFICIENTS[-1])
    for coefficient in (*COEFFICIENTS[-2::-1], np.float32(1), np.float32(1)):
        p = fma(p, r, coefficient)
    scaled = (p.view(np.int32) + (n.astype(np.int32) << MANTISSA_BITS)).view(np.float32)
    scaled = np.where(x > LARGEST, np.float32(np.inf), scaled)
    scaled = np.where(x < SMALLEST, np.float32(0), scaled)
    return np.where(np.isnan(x), x, scaled)
