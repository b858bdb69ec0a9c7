"""prime-rl (2026-08): mismatch_kl and what its DPPO mask removes, as prime-rl defines them.

In: UnmaskedTokens, with advantages and entropies where they are known. Out: AliasValues. Source:
src/prime_rl/trainer/rl/loss.py and train.py.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    mean,
)
from driftscope_probes.mismatch.number import BoolArray, FloatArray

# dppo_mask_low and dppo_mask_high.
DPPO_BOUND = 0.2


def prime_rl(
    tokens: UnmaskedTokens,
    advantages: FloatArray | None = None,
    entropy: FloatArray | None = None,
) -> AliasValues:
    """advantages and entropy are [unmasked]; without them the names that need them are absent.

    Flaws, kept: mismatch_kl is the unclamped k3, which one token may decide; a mean over no masked
    token is 0. prime-rl averages the masked_* and is_masked* names per sequence and then over
    sequences of a step; here they are means over tokens, so they differ with unequal lengths.
    """
    values = {
        "mismatch_kl/all/mean": tokens.mean("k3"),
        "mismatch_kl/all/std": tokens.unbiased_std("k3"),
        "mismatch_kl/all/max": tokens.largest("k3"),
    }
    if entropy is not None:
        entropy_mean = mean(entropy)
        values["kl_ent_ratio/mean"] = tokens.mean("k3") / entropy_mean if entropy_mean else np.nan
    if advantages is not None:
        masked = dppo_masked(tokens, advantages)
        positive, negative = advantages > 0, advantages < 0
        values |= {
            "masked_mismatch_kl": _mean_or_0(tokens.k3[masked]),
            "unmasked_mismatch_kl": _mean_or_0(tokens.k3[~masked]),
            "is_masked": _mean_or_0(masked),
            "is_masked_low": _mean_or_0(masked & negative),
            "is_masked_high": _mean_or_0(masked & positive),
            "masked_advantage_positive": _mean_or_0(positive[masked]),
            "masked_advantage_negative": _mean_or_0(negative[masked]),
        }
    return alias_values(values)


def dppo_masked(tokens: UnmaskedTokens, advantages: FloatArray) -> BoolArray:
    """[unmasked] tokens whose probability has already moved 0.2 in the direction of the advantage.

    An advantage of 0 is treated as negative, as prime-rl does.
    """
    moved = tokens.trainer_prob - tokens.rollout_prob
    masked: BoolArray = np.where(advantages > 0, moved > DPPO_BOUND, moved < -DPPO_BOUND)
    return masked


def _mean_or_0(values: FloatArray | BoolArray) -> float:
    return float(values.mean()) if values.size else 0.0
