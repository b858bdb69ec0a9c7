"""Per-sequence sums of the per-token terms: token means, sequence means and intervals need no more.

In: TokenPass. Out: SequenceSums, whose size is the number of sequences, not of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.number import NO_TOKENS, Number, finite


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


def sequence_sums(found: TokenPass) -> SequenceSums:
    kept = found.rows["kept"]
    index = np.flatnonzero(kept)
    of = found.sums[index]
    return SequenceSums(
        given_sequences=kept.size,
        sequence_index=index,
        length=kept[index],
        diff=of["diff"],
        abs_diff=of["abs_diff"],
        kl_k2=0.5 * of["square"],
        kl_k3=of["kl_k3"],
        prob_abs_diff=of["prob_abs_diff"],
    )
