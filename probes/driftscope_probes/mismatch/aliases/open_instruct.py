"""open-instruct (2026-08): debug/vllm_vs_local_* and val/rho_*, as open-instruct defines them.

In: UnmaskedTokens. Out: AliasValues. Source: open_instruct/grpo_utils.py.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.aliases.alias_values import (
    AliasValues,
    alias_values,
    mean,
    unbiased_std,
)
from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens

RHO_UPPER = 2.0
LOG_RATIO_CLAMP = 10.0


def open_instruct(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: vllm_local_reverse_kl weights by the rollout's probability tokens that were
    already sampled by it, so it is no KL of anything; tokens the engine could not score are left
    out without a count; the deviation of one token is 0.
    """
    known = ~np.isnan(tokens.rollout)
    difference = np.abs(tokens.diff[known])
    weighted = (tokens.rollout_prob * (tokens.rollout - tokens.trainer))[known]
    ratio = tokens.bounded_ratio(LOG_RATIO_CLAMP)
    debug = "debug/vllm_vs_local_logprob_diff_"
    return alias_values(
        {
            debug + "mean": float(difference.mean()) if difference.size else 0.0,
            debug + "max": float(difference.max()) if difference.size else 0.0,
            debug + "std": unbiased_std(difference) if difference.size > 1 else 0.0,
            "debug/vllm_local_reverse_kl": float(weighted.mean()) if weighted.size else 0.0,
            "val/rho_weight": mean(np.minimum(ratio, RHO_UPPER)),
            "val/rho_clipfrac": mean(ratio > RHO_UPPER),
        }
    )
