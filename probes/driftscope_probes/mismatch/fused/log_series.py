"""The series of ln((1 + s) / (1 − s)), on which every logarithm of the fused pass rests.

In: s². Out: what is left of the logarithm after its first term 2s.
"""

from __future__ import annotations

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.float_bits import fma

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
