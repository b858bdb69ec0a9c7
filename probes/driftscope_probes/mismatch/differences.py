"""How far Δ lies from 0: means and quantiles in nats, distances in units in the last place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from driftscope_probes.mismatch.number import NO_TOKENS, Number, Undefined, finite, mean
from driftscope_probes.mismatch.sums import (
    SequenceSums,
    TokenExtremes,
    TokenSpread,
    unbiased_std_of,
)


def linear_quantile(values: Mapping[int, float], share: float, count: int) -> float:
    """Between order statistics, rounded as numpy rounds it."""
    low, high, weight = quantile_ranks(share, count)
    below, above = values[low], values[high]
    step = above - below
    return above - step * (1.0 - weight) if weight >= 0.5 else below + step * weight


def quantile_ranks(share: float, count: int) -> tuple[int, int, float]:
    """The two ranks a quantile lies between, and the weight of the upper one."""
    position = share * (count - 1)
    low = math.floor(position)
    return low, min(low + 1, count - 1), position - low


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
    diff_std: Number  # std of the signed Δ, unbiased


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
    """Ranks of |Δ| whose values absolute_difference takes."""
    ranks = (quantile_ranks(share, count) for share in QUANTILES if count)
    return {rank for low, high, _ in ranks for rank in (low, high)}


def _quantile(values: Mapping[int, float], share: float, count: int) -> Number:
    return finite(linear_quantile(values, share, count)) if count else NO_TOKENS


@dataclass(frozen=True, slots=True)
class ULP:
    """Both sides as float32; float64 input is rounded to it first. 0.0 and -0.0 are 0 apart."""

    ulp_distance_p50: Number
    ulp_distance_max: int | Undefined


def ulp(values: Mapping[int, float], extremes: TokenExtremes, count: int) -> ULP:
    """values: order statistics of the distance by rank, those of median_ranks."""
    if not count:
        return ULP(ulp_distance_p50=NO_TOKENS, ulp_distance_max=NO_TOKENS)
    middle = [values[rank] for rank in median_ranks(count)]
    return ULP(
        ulp_distance_p50=sum(middle) / len(middle),
        ulp_distance_max=int(extremes.ulp_distance_max),
    )


def median_ranks(count: int) -> set[int]:
    """The one or two ranks in the middle; none of nothing."""
    return {(count - 1) // 2, count // 2} if count else set()
