"""NeMo-RL (2026-08): token_mult_prob_error and its neighbours, as NeMo-RL defines them.

In: UnmaskedTokens. Out: AliasValues. Source: nemo_rl/algorithms/loss/loss_functions.py, grpo.py.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    biggest,
    mean,
    smallest,
)
from driftscope_probes.mismatch.number import FloatArray


def nemo_rl(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: a non-finite ratio enters sampling_importance_ratio as 0, which hides it and
    lowers the mean; policy_kl_error is k3 with the sides swapped but the samples unchanged, so it
    estimates no KL and explodes where the rollout is far more confident; js_divergence_error is
    two k3 terms against the mixture of two numbers, not the divergence of two distributions.
    NeMo takes the logarithm of the summed probabilities, which fails once both underflow; here
    the closed form of the same terms is taken, which agrees everywhere else.
    """
    errors = tokens.sequence_mean("mult_error")[tokens.length > 0]
    finite_ratio: Literal["ratio"] | FloatArray = "ratio"
    if not math.isfinite(tokens.largest("ratio")):
        finite_ratio = np.nan_to_num(tokens.ratio, nan=0.0, posinf=0.0)
    return alias_values(
        {
            "token_mult_prob_error": tokens.mean("mult_error"),
            "gen_kl_error": tokens.mean("k3"),
            "policy_kl_error": tokens.mean("reverse_k3"),
            "js_divergence_error": tokens.mean("mixture"),
            "sampling_importance_ratio": tokens.mean(finite_ratio),
            "max_seq_mult_prob_error": biggest(errors),
            "mean_seq_mult_prob_error": mean(errors),
            "min_seq_mult_prob_error": smallest(errors),
        }
    )
