"""Smallest and largest per-token values: exact under any split of the tokens.

In: TokenDifferences and the per-token terms. Out: TokenExtremes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import NO_TOKENS, Number, finite
from driftscope_probes.mismatch.token_differences import TokenDifferences


@dataclass(frozen=True, slots=True)
class TokenExtremes:
    """Without tokens a maximum is −inf and a minimum +inf, which leave any other value alone."""

    abs_diff_max: float  # nats
    ratio_min: float
    ratio_max: float
    prob_abs_diff_max: float
    binary_kl_max: float  # nats

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
        )


def token_extremes(tokens: TokenDifferences, binary_kl: FloatArray) -> TokenExtremes:
    """binary_kl: [kept] binary_kl_terms."""
    return TokenExtremes(
        abs_diff_max=_largest(tokens.abs_diff),
        ratio_min=float(tokens.ratio.min(initial=math.inf)),
        ratio_max=_largest(tokens.ratio),
        prob_abs_diff_max=_largest(tokens.prob_abs_diff),
        binary_kl_max=_largest(binary_kl),
    )


def _largest(values: FloatArray) -> float:
    return float(values.max(initial=-math.inf))


def _larger(first: float, second: float) -> float:
    """NaN, an overflow on both sides of a token, wins in either order."""
    return float(np.maximum(first, second))


def _smaller(first: float, second: float) -> float:
    return float(np.minimum(first, second))
