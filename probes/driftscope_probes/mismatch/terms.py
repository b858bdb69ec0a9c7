"""k3 of one token: exp(Δ) − 1 − Δ, accurate for every Δ.

In: Δ [tokens], float64. Out: k3 [tokens], never negative.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray

# Below this |Δ| the series is used: expm1(Δ) − Δ cancels, with a relative error of about
# 2⁻⁵³ / |Δ|, and may even turn out negative near |Δ| = 1e-15. At 1e-2 both agree to 1e-14.
SERIES_BELOW = 1e-2

# Terms of ½Δ²(1 + Δ/3(1 + Δ/4(1 + …))). The first one left out is 2·Δ⁶/8! ≤ 5e-17 of the sum at
# SERIES_BELOW, which is less than half a unit in the last place of float64 (1.1e-16).
SERIES_DIVISORS = (7.0, 6.0, 5.0, 4.0, 3.0)


def k3_terms(diff: FloatArray) -> FloatArray:
    """ρ − 1 − Δ with ρ = exp(Δ): Schulman's k3 of KL(rollout‖trainer), unclamped (verl k3_kl)."""
    with np.errstate(over="ignore"):
        terms = _series(diff)
        large = np.flatnonzero(np.abs(diff) >= SERIES_BELOW)
        terms[large] = np.expm1(diff[large]) - diff[large]
    return terms


def _series(diff: FloatArray) -> FloatArray:
    factor = np.ones_like(diff)
    for divisor in SERIES_DIVISORS:
        factor *= diff / divisor
        factor += 1.0
    factor *= diff
    factor *= diff
    factor *= 0.5
    return factor
