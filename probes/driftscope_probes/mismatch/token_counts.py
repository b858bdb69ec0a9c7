"""How many tokens lie beyond each threshold: whole numbers, which add up exactly.

In: TokenDifferences. Out: TokenCounts.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import BoolArray
from driftscope_probes.mismatch.chi_square_terms import CHI_SQUARE_BOUND
from driftscope_probes.mismatch.number import NO_TOKENS, Number
from driftscope_probes.mismatch.token_differences import TokenDifferences

# The truncation C = 2 that verl and slime use by default, and its inverse.
WIDE_BAND = (0.5, 2.0)
# PPO's clip ranges at ε = 0.1 and 0.2: tokens outside lose their gradient from rounding alone.
NARROW_BAND = (0.9, 1.1)
PPO_BAND = (0.8, 1.2)
# F(τ = 2) of the routing-replay paper: the share of tokens with |Δ| > ln τ.
EXTREME_DIFF = math.log(2.0)
# martingale 0.2.0: rollout probability of about one half, trainer more than 2 nats below.
CONFIDENT_ABOVE = -0.7
DISAGREES_BELOW = -2.0


@dataclass(frozen=True, slots=True)
class TokenCounts:
    tokens: int
    ratio_above_wide: int
    ratio_below_wide: int
    ratio_outside_narrow: int
    ratio_outside_ppo: int
    extreme_diff: int
    confident_disagreements: int
    chi2_saturated: int

    def share(self, count: int) -> Number:
        return count / self.tokens if self.tokens else NO_TOKENS

    def merged(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            }
        )


def token_counts(tokens: TokenDifferences) -> TokenCounts:
    ratio, diff = tokens.ratio, tokens.diff
    return TokenCounts(
        tokens=diff.size,
        ratio_above_wide=_count(ratio > WIDE_BAND[1]),
        ratio_below_wide=_count(ratio < WIDE_BAND[0]),
        ratio_outside_narrow=_count((ratio < NARROW_BAND[0]) | (ratio > NARROW_BAND[1])),
        ratio_outside_ppo=_count((ratio < PPO_BAND[0]) | (ratio > PPO_BAND[1])),
        extreme_diff=_count(tokens.abs_diff > EXTREME_DIFF),
        confident_disagreements=_count(
            (tokens.rollout_logprob > CONFIDENT_ABOVE) & (diff < DISAGREES_BELOW)
        ),
        chi2_saturated=_count(tokens.abs_diff > CHI_SQUARE_BOUND),
    )


def _count(chosen: BoolArray) -> int:
    return int(np.count_nonzero(chosen))
