"""Smallest and largest per-token values: exact under any split of the tokens.

In: TokenPass. Out: TokenExtremes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.number import NO_TOKENS, Number, finite


@dataclass(frozen=True, slots=True)
class TokenExtremes:
    """Without tokens a maximum is −inf and a minimum +inf, which leave any other value alone."""

    abs_diff_max: float  # nats
    ratio_min: float
    ratio_max: float
    prob_abs_diff_max: float
    binary_kl_max: float  # nats
    ulp_distance_max: float  # float32 numbers

    def number(self, extreme: float) -> Number:
        """For a report: the value, or why there is none."""
        return NO_TOKENS if self.abs_diff_max == -math.inf else finite(extreme)

    def merged(self, other: TokenExtremes) -> TokenExtremes:
        return TokenExtremes(
            abs_diff_max=_larger(self.abs_diff_max, other.abs_diff_max),
            ratio_min=_smaller(self.ratio_min, other.ratio_min),
            ratio_max=_larger(self.ratio_max, other.ratio_max),
            prob_abs_diff_max=_larger(self.prob_abs_diff_max, other.prob_abs_diff_max),
            binary_kl_max=_larger(self.binary_kl_max, other.binary_kl_max),
            ulp_distance_max=_larger(self.ulp_distance_max, other.ulp_distance_max),
        )


def token_extremes(found: TokenPass) -> TokenExtremes:
    if not found.rows["kept"].any():
        return TokenExtremes(-math.inf, math.inf, *[-math.inf] * 4)
    return TokenExtremes(
        abs_diff_max=found.extreme("abs_diff_max"),
        ratio_min=found.extreme("ratio_min"),
        ratio_max=found.extreme("ratio_max"),
        prob_abs_diff_max=found.extreme("prob_abs_diff_max"),
        binary_kl_max=found.extreme("binary_kl_max"),
        ulp_distance_max=found.extreme("ulp_distance_max"),
    )


def _larger(first: float, second: float) -> float:
    """NaN, an overflow on both sides of a token, wins in either order."""
    return float(np.maximum(first, second))


def _smaller(first: float, second: float) -> float:
    return float(np.minimum(first, second))
