"""How many tokens lie beyond each threshold: whole numbers, which add up exactly.

In: TokenPass. Out: TokenCounts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from driftscope_probes.mismatch.fused.layouts import COUNTS, TokenPass
from driftscope_probes.mismatch.number import NO_TOKENS, Number


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


def token_counts(found: TokenPass) -> TokenCounts:
    return TokenCounts(
        tokens=int(found.rows["kept"].sum()),
        **{name: int(found.counts[name][0]) for name in COUNTS.names or ()},
    )
