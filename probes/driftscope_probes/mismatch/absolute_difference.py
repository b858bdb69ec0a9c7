"""Differences in log space: how far Δ lies from 0, and on which side.

In: TokenDifferences and SequenceSums. Out: numbers in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.number import NO_TOKENS, Number, finite, maximum, mean, unbiased_std
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_differences import TokenDifferences

# Linear interpolation between order statistics, the default of torch.quantile and numpy.
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)
QUANTILE_METHOD: Final = "linear"


@dataclass(frozen=True, slots=True)
class AbsoluteDifference:
    abs_diff_mean: Number  # over tokens (TRL sampling_logp_difference/mean, SkyRL, open-instruct)
    abs_diff_seq_mean: Number  # mean over sequences of their token means (slime, miles)
    abs_diff_p50: Number
    abs_diff_p90: Number
    abs_diff_p95: Number
    abs_diff_p99: Number
    abs_diff_p99p9: Number  # below 1,000 tokens an interpolation between the two largest
    abs_diff_p99p99: Number  # likewise below 10,000 tokens
    abs_diff_max: Number
    diff_mean: Number  # signed (torchtitan bit_wise/logprob_diff/mean)
    diff_std: Number  # of the signed Δ, unbiased


def absolute_difference(tokens: TokenDifferences, sums: SequenceSums) -> AbsoluteDifference:
    p50, p90, p95, p99, p99p9, p99p99 = _quantiles(tokens.abs_diff)
    return AbsoluteDifference(
        abs_diff_mean=sums.token_mean(sums.abs_diff),
        abs_diff_seq_mean=mean(sums.abs_diff / sums.length),
        abs_diff_p50=p50,
        abs_diff_p90=p90,
        abs_diff_p95=p95,
        abs_diff_p99=p99,
        abs_diff_p99p9=p99p9,
        abs_diff_p99p99=p99p99,
        abs_diff_max=maximum(tokens.abs_diff),
        diff_mean=sums.token_mean(sums.diff),
        diff_std=unbiased_std(tokens.diff),
    )


def _quantiles(abs_diff: FloatArray) -> list[Number]:
    if not abs_diff.size:
        return [NO_TOKENS] * len(QUANTILES)
    with np.errstate(over="ignore", invalid="ignore"):
        return [finite(x) for x in np.quantile(abs_diff, QUANTILES, method=QUANTILE_METHOD)]
