"""χ² term of one token: ρ² − 1 with the log-ratio clamped.

In: Δ [tokens], float64. Out: one value per token.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray

# verl's SAFETY_BOUND, in nats, for tokens and for whole sequences.
CHI_SQUARE_BOUND = 20.0


def chi_square_terms(diff: FloatArray) -> FloatArray:
    """expm1 rather than ρ² − 1, which cancels where both sides are close."""
    terms: FloatArray = np.expm1(2.0 * np.clip(diff, -CHI_SQUARE_BOUND, CHI_SQUARE_BOUND))
    return terms
