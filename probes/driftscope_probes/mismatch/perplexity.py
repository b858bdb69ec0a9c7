"""Perplexity of the responses on both sides, per sequence and then averaged, as verl does.

In: SequenceSums and DivergenceSums. Out: perplexities (no unit), their logarithms (nats per token).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number, maximum, mean, minimum
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Means over sequences; names and definitions of verl's rollout_corr/*.

    log_ppl_diff of a sequence is ln ppl_trainer − ln ppl_rollout = −S_i / n_i.
    """

    training_ppl: Number
    training_log_ppl: Number
    rollout_ppl: Number
    rollout_log_ppl: Number
    log_ppl_diff_mean: Number
    log_ppl_diff_abs_mean: Number
    log_ppl_diff_max: Number
    log_ppl_diff_min: Number
    ppl_ratio: Number  # mean of the inverse geometric ratios exp(−S_i / n_i)


def perplexity(sums: SequenceSums, divergences: DivergenceSums) -> Perplexity:
    training = 0.0 - divergences.trainer_logprob / sums.length
    rollout = 0.0 - divergences.rollout_logprob / sums.length
    difference = 0.0 - sums.diff / sums.length
    return Perplexity(
        training_ppl=mean(_exp(training)),
        training_log_ppl=mean(training),
        rollout_ppl=mean(_exp(rollout)),
        rollout_log_ppl=mean(rollout),
        log_ppl_diff_mean=mean(difference),
        log_ppl_diff_abs_mean=mean(np.abs(difference)),
        log_ppl_diff_max=maximum(difference),
        log_ppl_diff_min=minimum(difference),
        ppl_ratio=mean(_exp(difference)),
    )


def _exp(values: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.exp(values)
