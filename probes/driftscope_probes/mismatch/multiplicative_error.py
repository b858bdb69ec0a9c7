"""Multiplicative probability error: by which factor the two probabilities of a token differ.

In: SequenceSums and DivergenceSums. Out: mean of exp(|Δ|), ideally 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number, maximum, mean, minimum
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class MultiplicativeError:
    token_mult_prob_error: Number  # over tokens; NeMo-RL investigates from 1.05 on
    seq_mult_prob_error_mean: Number  # over sequences, of their token means (NeMo-RL)
    seq_mult_prob_error_min: Number
    seq_mult_prob_error_max: Number


def multiplicative_error(sums: SequenceSums, divergences: DivergenceSums) -> MultiplicativeError:
    by_sequence = divergences.mult_error / sums.length
    return MultiplicativeError(
        token_mult_prob_error=sums.token_mean(divergences.mult_error),
        seq_mult_prob_error_mean=mean(by_sequence),
        seq_mult_prob_error_min=minimum(by_sequence),
        seq_mult_prob_error_max=maximum(by_sequence),
    )
