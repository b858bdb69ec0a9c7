"""Distance in float32 units in the last place: how many float32 numbers lie between both sides.

In: TokenExtremes and order statistics. Out: the largest and the median distance over the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from driftscope_probes.mismatch.number import NO_TOKENS, Number, Undefined
from driftscope_probes.mismatch.token_extremes import TokenExtremes


@dataclass(frozen=True, slots=True)
class ULP:
    """Both sides as float32; float64 input is rounded to it first. 0.0 and -0.0 are 0 apart."""

    ulp_distance_p50: Number
    ulp_distance_max: int | Undefined


def ulp(values: Mapping[int, float], extremes: TokenExtremes, count: int) -> ULP:
    """values: order statistics of the distance by rank, those of median_ranks."""
    if not count:
        return ULP(ulp_distance_p50=NO_TOKENS, ulp_distance_max=NO_TOKENS)
    middle = [values[rank] for rank in median_ranks(count)]
    return ULP(
        ulp_distance_p50=sum(middle) / len(middle),
        ulp_distance_max=int(extremes.ulp_distance_max),
    )


def median_ranks(count: int) -> set[int]:
    """The one or two ranks in the middle; none of nothing."""
    return {(count - 1) // 2, count // 2} if count else set()
