"""Per-sequence sums of the per-token terms: token means, sequence means and intervals need no more.

In: TokenDifferences. Out: SequenceSums, whose size is the number of sequences, not of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.k3 import k3_terms
from driftscope_probes.mismatch.number import NO_TOKENS, Number, finite
from driftscope_probes.mismatch.token_blocks import by_blocks
from driftscope_probes.mismatch.token_differences import TokenDifferences


@dataclass(frozen=True, slots=True)
class SequenceSums:
    """Sums over the kept tokens of each sequence that has any; overflow shows as infinity."""

    given_sequences: int  # the empty ones included
    sequence_index: IntArray  # [sequences] place among the given sequences
    length: IntArray  # [sequences] n_i
    diff: FloatArray  # [sequences] S_i = Σ Δ, nats: the sequence log-ratio
    abs_diff: FloatArray  # [sequences] Σ |Δ|, nats
    kl_k2: FloatArray  # [sequences] Σ ½Δ²
    kl_k3: FloatArray  # [sequences] Σ (ρ − 1 − Δ)
    prob_abs_diff: FloatArray  # [sequences] Σ |p_trainer − p_rollout|

    def token_mean(self, sums: FloatArray) -> Number:
        """Mean over all tokens of the term whose per-sequence sums are given."""
        if not sums.size:
            return NO_TOKENS
        with np.errstate(over="ignore", invalid="ignore"):
            return finite(float(sums.sum()) / int(self.length.sum()))


def sequence_sums(tokens: TokenDifferences) -> SequenceSums:
    with np.errstate(over="ignore"):
        half_squares = 0.5 * tokens.diff * tokens.diff
    return SequenceSums(
        given_sequences=tokens.given_sequences,
        sequence_index=tokens.sequence_index,
        length=tokens.length,
        diff=tokens.sum_by_sequence(tokens.diff),
        abs_diff=tokens.sum_by_sequence(tokens.abs_diff),
        kl_k2=tokens.sum_by_sequence(half_squares),
        kl_k3=tokens.sum_by_sequence(by_blocks(k3_terms, tokens.diff)),
        prob_abs_diff=tokens.sum_by_sequence(tokens.prob_abs_diff),
    )
