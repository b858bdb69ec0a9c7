"""Per-sequence sums of the terms that only token and sequence means need, not the plots.

In: TokenDifferences and the binary KL terms. Out: DivergenceSums, one number per sequence each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.chi_square_terms import chi_square_terms
from driftscope_probes.mismatch.js_terms import js_terms
from driftscope_probes.mismatch.k3 import k3_terms
from driftscope_probes.mismatch.token_blocks import by_blocks
from driftscope_probes.mismatch.token_differences import TokenDifferences

# The cap C = 2 at which verl and slime truncate their weights by default.
TRUNCATED_AT = 2.0


@dataclass(frozen=True, slots=True)
class DivergenceSums:
    """Sums over the kept tokens of each sequence that has any; overflow shows as infinity."""

    rollout_logprob: FloatArray  # nats
    trainer_logprob: FloatArray  # nats
    ratio: FloatArray  # Σ ρ
    ratio_abs_dev: FloatArray  # Σ |ρ − 1|
    ratio_diff: FloatArray  # Σ ρΔ
    truncated_ratio: FloatArray  # Σ min(ρ, 2)
    truncated_ratio_square: FloatArray  # Σ min(ρ, 2)²
    mult_error: FloatArray  # Σ exp(|Δ|)
    prob_diff: FloatArray  # Σ (p_trainer − p_rollout)
    kl_reverse_k3: FloatArray  # Σ (1/ρ − 1 + Δ)
    js_divergence: FloatArray  # Σ ln cosh(Δ/2)
    binary_kl: FloatArray
    chi2: FloatArray  # Σ (ρ² − 1), Δ clamped


def divergence_sums(tokens: TokenDifferences, binary_kl: FloatArray) -> DivergenceSums:
    """binary_kl: [kept] binary_kl_terms."""
    truncated = np.minimum(tokens.ratio, TRUNCATED_AT)
    by_sequence = tokens.sum_by_sequence
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return DivergenceSums(
            rollout_logprob=by_sequence(tokens.rollout_logprob),
            trainer_logprob=by_sequence(tokens.trainer_logprob),
            ratio=by_sequence(tokens.ratio),
            ratio_abs_dev=by_sequence(np.abs(np.expm1(tokens.diff))),
            ratio_diff=by_sequence(tokens.ratio * tokens.diff),
            truncated_ratio=by_sequence(truncated),
            truncated_ratio_square=by_sequence(truncated * truncated),
            mult_error=by_sequence(np.exp(tokens.abs_diff)),
            prob_diff=by_sequence(tokens.trainer_prob - tokens.rollout_prob),
            kl_reverse_k3=by_sequence(by_blocks(k3_terms, -tokens.diff)),
            js_divergence=by_sequence(by_blocks(js_terms, tokens.diff)),
            binary_kl=by_sequence(binary_kl),
            chi2=by_sequence(by_blocks(chi_square_terms, tokens.diff)),
        )
