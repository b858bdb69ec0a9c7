"""Importance ratios ρ = exp(Δ) of the tokens, raw: neither clipped nor masked by a threshold.

In: TokenDifferences. Out: plain numbers; the expectation of ρ under rollout samples is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    Number,
    maximum,
    mean,
    minimum,
    unbiased_std,
)
from driftscope_probes.mismatch.token_differences import TokenDifferences

# The truncation C = 2 that verl and slime use by default, and its inverse.
WIDE_BAND = (0.5, 2.0)
# PPO's clip range at ε = 0.1: tokens outside it lose their gradient from rounding alone.
NARROW_BAND = (0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Ratio:
    ratio_mean: Number
    ratio_min: Number
    ratio_max: Number
    ratio_std: Number  # unbiased
    ratio_share_outside_0p5_2: Number  # of tokens
    ratio_share_outside_0p9_1p1: Number  # of tokens


def ratio(tokens: TokenDifferences) -> Ratio:
    return Ratio(
        ratio_mean=mean(tokens.ratio),
        ratio_min=minimum(tokens.ratio),
        ratio_max=maximum(tokens.ratio),
        ratio_std=unbiased_std(tokens.ratio),
        ratio_share_outside_0p5_2=share_outside(tokens.ratio, WIDE_BAND),
        ratio_share_outside_0p9_1p1=share_outside(tokens.ratio, NARROW_BAND),
    )


def share_outside(ratios: FloatArray, band: tuple[float, float]) -> Number:
    """Share of tokens with ρ outside the closed band."""
    if not ratios.size:
        return NO_TOKENS
    low, high = band
    return int(np.count_nonzero((ratios < low) | (ratios > high))) / ratios.size
