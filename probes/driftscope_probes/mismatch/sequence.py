"""Sequence log-ratios S_i = Σ_t Δ_it: what a sequence-level importance weight is made of.

In: SequenceSums. Out: numbers in nats over the sequences that hold any token.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.number import Number, maximum, mean, minimum, unbiased_std
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class SequenceLogRatio:
    """Sequences whose tokens were partly left out enter with the tokens that remain."""

    seq_logratio_mean: Number
    seq_logratio_std: Number  # unbiased
    seq_logratio_min: Number
    seq_logratio_max: Number
    seq_logratio_per_token_mean: Number  # mean of S_i / n_i, the log of the geometric ratio
    seq_logratio_per_token_std: Number  # unbiased


def sequence_log_ratio(sums: SequenceSums) -> SequenceLogRatio:
    per_token = sums.diff / sums.length
    return SequenceLogRatio(
        seq_logratio_mean=mean(sums.diff),
        seq_logratio_std=unbiased_std(sums.diff),
        seq_logratio_min=minimum(sums.diff),
        seq_logratio_max=maximum(sums.diff),
        seq_logratio_per_token_mean=mean(per_token),
        seq_logratio_per_token_std=unbiased_std(per_token),
    )
