"""torchtitan 0.3.0 (experiments/rl): bit_wise/*, as torchtitan defines them.

In: UnmaskedTokens. Out: AliasValues. Source: torchtitan/experiments/rl/losses/dapo.py.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.aliases.alias_values import (
    AliasValues,
    alias_values,
    biggest,
    mean,
)
from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens

# torchtitan counts a token as different above it, although the prefix says bit_wise.
DIFFERENT_ABOVE = 1e-6


def torchtitan(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: logprob_diff/mean is signed, so it can be 0 while every token differs, whereas
    logprob_diff/max is of the absolute value; "different" means |Δ| > 1e-6, not different bits.
    """
    return alias_values(
        {
            "bit_wise/logprob_diff/mean": mean(tokens.diff),
            "bit_wise/logprob_diff/max": biggest(np.abs(tokens.diff)),
            "bit_wise/ratio_tokens_different/mean": mean(np.abs(tokens.diff) > DIFFERENT_ABOVE),
            "loss/ratio_mean": mean(tokens.ratio),
        }
    )
