"""What a rejection or truncation preset would do to a batch, in shares.

In: the tokens it drops and the tokens it clips. Out: PresetEffect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.arrays import BoolArray


@dataclass(frozen=True, slots=True)
class TokenFates:
    """Both [unmasked]; a token may be clipped by one step of a preset and dropped by another."""

    dropped: BoolArray  # loses its gradient: masked, or given the weight 0
    clipped: BoolArray  # keeps it with a weight that was cut to a bound


@dataclass(frozen=True, slots=True)
class PresetEffect:
    """Shares of the unmasked tokens, and of the sequences that hold any of them."""

    tokens_dropped: float
    tokens_clipped: float  # and not dropped
    sequences_dropped: float  # every token of it dropped
    sequences_touched: float  # any token of it dropped or clipped

    def to_dict(self) -> dict[str, float | str]:
        return {
            "tokens_dropped": self.tokens_dropped,
            "tokens_clipped": self.tokens_clipped,
            "sequences_dropped": self.sequences_dropped,
            "sequences_touched": self.sequences_touched,
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Stands where an effect would stand."""

    reason: str

    def to_dict(self) -> dict[str, float | str]:
        return {"left_out": self.reason}


def nothing(tokens: UnmaskedTokens) -> BoolArray:
    return np.zeros(tokens.diff.size, dtype=np.bool_)


def effect(tokens: UnmaskedTokens, fates: TokenFates) -> PresetEffect | LeftOut:
    if not tokens.diff.size:
        return LeftOut("no unmasked token")
    held = tokens.length > 0
    clipped = fates.clipped & ~fates.dropped
    whole = ~tokens.any_in_sequence(~fates.dropped)
    touched = tokens.any_in_sequence(fates.dropped | fates.clipped)
    return PresetEffect(
        tokens_dropped=np.count_nonzero(fates.dropped) / fates.dropped.size,
        tokens_clipped=np.count_nonzero(clipped) / clipped.size,
        sequences_dropped=float(whole[held].mean()),
        sequences_touched=float(touched[held].mean()),
    )
