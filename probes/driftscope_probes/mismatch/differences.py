"""Differences in log space: how far Δ lies from 0, and on which side.

In: SequenceSums, TokenSpread, TokenExtremes and order statistics. Out: numbers in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from driftscope_probes.mismatch.number import NO_TOKENS, Number, finite, mean
from driftscope_probes.mismatch.quantile import linear_quantile, quantile_ranks
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_extremes import TokenExtremes
from driftscope_probes.mismatch.token_spread import TokenSpread, unbiased_std_of

# Linear interpolation between order statistics, the default of torch.quantile and numpy.
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)


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


def absolute_difference(
    sums: SequenceSums, spread: TokenSpread, extremes: TokenExtremes, values: Mapping[int, float]
) -> AbsoluteDifference:
    """values: order statistics of |Δ| by rank, those of quantile_ranks."""
    count = int(sums.length.sum())
    p50, p90, p95, p99, p99p9, p99p99 = (_quantile(values, share, count) for share in QUANTILES)
    return AbsoluteDifference(
        abs_diff_mean=sums.token_mean(sums.abs_diff),
        abs_diff_seq_mean=mean(sums.abs_diff / sums.length),
        abs_diff_p50=p50,
        abs_diff_p90=p90,
        abs_diff_p95=p95,
        abs_diff_p99=p99,
        abs_diff_p99p9=p99p9,
        abs_diff_p99p99=p99p99,
        abs_diff_max=extremes.number(extremes.abs_diff_max),
        diff_mean=sums.token_mean(sums.diff),
        diff_std=unbiased_std_of(sums, sums.diff, spread.diff),
    )


def wanted_ranks(count: int) -> set[int]:
    """Of |Δ|, as absolute_difference takes their values."""
    places = (quantile_ranks(share, count) for share in QUANTILES if count)
    return {rank for low, high, _ in places for rank in (low, high)}


def _quantile(values: Mapping[int, float], share: float, count: int) -> Number:
    return finite(linear_quantile(values, share, count)) if count else NO_TOKENS
