"""NeMo-RL (2026-08): token_mult_prob_error and its neighbours, as NeMo-RL defines them.

In: UnmaskedTokens. Out: AliasValues. Source: nemo_rl/algorithms/loss/loss_functions.py, grpo.py.
"""

from __future__ import annotations

import math

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
from driftscope_probes.mismatch.terms import k3_terms

# Above it log cosh x is x − ln 2 to the last bit, and well below it sinh² cannot overflow.
LINEAR_ABOVE = 50.0


def nemo_rl(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: a non-finite ratio enters sampling_importance_ratio as 0, which hides it and
    lowers the mean; policy_kl_error is k3 with the sides swapped but the samples unchanged, so it
    estimates no KL and explodes where the rollout is far more confident; js_divergence_error is
    two k3 terms against the mixture of two numbers, not the divergence of two distributions.
    NeMo takes the logarithm of the summed probabilities, which fails once both underflow; here
    the closed form of the same terms is taken, which agrees everywhere else.
    """
    token_errors = np.exp(np.abs(tokens.diff))
    errors = tokens.sequence_mean(token_errors)[tokens.length > 0]
    finite_ratio = np.nan_to_num(tokens.ratio, nan=0.0, posinf=0.0)
    return alias_values(
        {
            "token_mult_prob_error": mean(token_errors),
            "gen_kl_error": mean(tokens.k3),
            "policy_kl_error": mean(k3_terms(-tokens.diff)),
            "js_divergence_error": mean(_mixture_terms(tokens)),
            "sampling_importance_ratio": mean(finite_ratio),
            "max_seq_mult_prob_error": biggest(errors),
            "mean_seq_mult_prob_error": mean(errors),
            "min_seq_mult_prob_error": smallest(errors),
        }
    )


def _mixture_terms(tokens: UnmaskedTokens) -> FloatArray:
    """½·k3 of either side against the mixture: all exponentials cancel, log cosh(Δ/2) remains."""
    half = 0.5 * np.abs(tokens.diff)
    terms: FloatArray = np.log1p(2.0 * np.sinh(0.5 * half) ** 2)
    return np.where(half > LINEAR_ABOVE, half - math.log(2.0), terms)
