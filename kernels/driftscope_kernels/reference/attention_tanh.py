"""The hyperbolic tangent of attention's soft cap: one float32 program.

In: float32. Out: float32, within 2 ULP of tanh x.
"""

from __future__ import annotations

import numpy as np

from driftscope_kernels.reference.arithmetic import Float32, Operand, fma
from driftscope_kernels.reference.exp import exp

# tanh x = x + x³·P(x²) below THRESHOLD, where 1 − 2 / (e^2x + 1) would cancel: minimax fit of P
# (relative error of the result 4.5e-9, that is 0.08 · 2^-24), lowest power first.
COEFFICIENTS = tuple(
    np.float32(float.fromhex(c))
    for c in (
        "-0x1.555532p-2",
        "0x1.1106fcp-3",
        "-0x1.b836e8p-5",
        "0x1.52034ep-6",
        "-0x1.75438cp-8",
    )
)
THRESHOLD = np.float32(0.625)


@np.errstate(all="ignore")
def tanh(x: Operand) -> Float32:
    """tanh x, odd; ±1 of ±∞, NaN of NaN.

    1. a = |x|; z = a · a; P by Horner's rule with fma from the highest coefficient down;
       small = fma(P · z, a, a).
    2. large = 1 − 2 / (exp(a + a) + 1).
    3. small where a < THRESHOLD, else large; with the sign of x.
    """
    x = np.asarray(x, np.float32)
    a = np.abs(x)
    z = a * a
    p = np.full_like(a, COEFFICIENTS[-1])
    for coefficient in COEFFICIENTS[-2::-1]:
        p = fma(p, z, coefficient)
    small = fma(p * z, a, a)
    large = np.float32(1) - np.float32(2) / (exp(a + a) + np.float32(1))
    result: Float32 = np.copysign(np.where(a < THRESHOLD, small, large), x)
    return result
