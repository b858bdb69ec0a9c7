"""Distance in float32 units in the last place: how many float32 numbers lie between both sides.

In: TokenDifferences. Out: the largest and the median distance over the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.number import NO_TOKENS, Number, Undefined
from driftscope_probes.mismatch.token_differences import TokenDifferences

SIGN_BIT = np.int64(1) << 31  # of IEEE 754 binary32


@dataclass(frozen=True, slots=True)
class ULP:
    """Both sides as float32; float64 input is rounded to it first. 0.0 and -0.0 are 0 apart."""

    ulp_distance_p50: Number
    ulp_distance_max: int | Undefined


def ulp(tokens: TokenDifferences) -> ULP:
    distance = ulp_distance(tokens.rollout_logprob, tokens.trainer_logprob)
    if not distance.size:
        return ULP(ulp_distance_p50=NO_TOKENS, ulp_distance_max=NO_TOKENS)
    return ULP(ulp_distance_p50=float(np.median(distance)), ulp_distance_max=int(distance.max()))


def ulp_distance(first: FloatArray, second: FloatArray) -> IntArray:
    """[tokens] distances; finite numbers beyond float32 count as the one after its largest."""
    distance: IntArray = np.abs(_rank(first) - _rank(second))
    return distance


def _rank(values: FloatArray) -> IntArray:
    """Integers in the order of the float32 numbers, one apart for neighbours, 0 for both zeros."""
    with np.errstate(over="ignore", under="ignore"):
        bits = values.astype(np.float32).view(np.uint32).astype(np.int64)
    return np.where(bits >= SIGN_BIT, SIGN_BIT - bits, bits)
