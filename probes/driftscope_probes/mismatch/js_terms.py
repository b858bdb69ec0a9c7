"""Jensen-Shannon term of one token: ln cosh(Δ/2), accurate for every Δ.

In: Δ [tokens], float64. Out: one value per token, nats, never negative.
"""

from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray

# Up to here log1p(2 sinh²(Δ/4)) is used, which does not cancel; beyond it |Δ|/2 − ln 2 + …, which
# does not overflow. At 1 nat both are good to a few units in the last place.
HYPERBOLIC_UP_TO = 1.0


def js_terms(diff: FloatArray) -> FloatArray:
    """NeMo-RL's ½ k3(lp_trainer − lm) + ½ k3(lp_rollout − lm), lm = ln of the mean probability.

    exp(lp_trainer − lm) + exp(lp_rollout − lm) is exactly 2, and what remains is ln cosh(Δ/2).
    """
    with np.errstate(over="ignore", under="ignore"):
        half_sine = np.sinh(0.25 * diff)
        terms: FloatArray = np.log1p(2.0 * half_sine * half_sine)
        large = np.flatnonzero(np.abs(diff) > HYPERBOLIC_UP_TO)
        size = np.abs(diff[large])
        terms[large] = 0.5 * size - math.log(2.0) + np.log1p(np.exp(-size))
    return terms
