"""Importance weights ρ = exp(Δ): their moments, their errors, and the sample they leave."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.counts import TokenCounts
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    OVERFLOW,
    FloatArray,
    Number,
    Undefined,
    dot,
    maximum,
    mean,
    minimum,
)
from driftscope_probes.mismatch.sums import DivergenceSums, SequenceSums, TokenExtremes
from driftscope_probes.mismatch.terms import TRUNCATED_AT


@dataclass(frozen=True, slots=True)
class Ratio:
    """Shares are of tokens; a band is closed, so that a ratio on its edge is inside."""

    ratio_mean: Number
    ratio_min: Number
    ratio_max: Number
    ratio_std: Number  # unbiased
    ratio_abs_dev_mean: Number  # mean |ρ − 1| (slime tis_abs)
    ratio_share_outside_0p5_2: Number
    ratio_share_above_2: Number
    ratio_share_below_0p5: Number
    ratio_share_outside_0p9_1p1: Number  # clipped by PPO at ε = 0.1, whatever the advantage
    ratio_share_outside_0p8_1p2: Number  # clipped by PPO at ε = 0.2
    abs_diff_share_above_ln2: Number  # |Δ| > ln 2, the F(τ = 2) of routing replay


def ratio(
    sums: SequenceSums,
    divergences: DivergenceSums,
    counts: TokenCounts,
    extremes: TokenExtremes,
    std: Number,
) -> Ratio:
    """std: of ρ, which whole batches and merged shards compute in different ways."""
    return Ratio(
        ratio_mean=sums.token_mean(divergences.ratio),
        ratio_min=extremes.number(extremes.ratio_min),
        ratio_max=extremes.number(extremes.ratio_max),
        ratio_std=std,
        ratio_abs_dev_mean=sums.token_mean(divergences.ratio_abs_dev),
        ratio_share_outside_0p5_2=counts.share(counts.ratio_below_wide + counts.ratio_above_wide),
        ratio_share_above_2=counts.share(counts.ratio_above_wide),
        ratio_share_below_0p5=counts.share(counts.ratio_below_wide),
        ratio_share_outside_0p9_1p1=counts.share(counts.ratio_outside_narrow),
        ratio_share_outside_0p8_1p2=counts.share(counts.ratio_outside_ppo),
        abs_diff_share_above_ln2=counts.share(counts.extreme_diff),
    )


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


ALL_ZERO = Undefined("every weight underflows to 0")


@dataclass(frozen=True, slots=True)
class EffectiveSampleSize:
    """(Σw)² / (n Σw²), Kish. Truncation hides the tail, so the truncated ones read higher."""

    ess_ratio_token: Number  # w = exp(Δ)
    ess_ratio_sequence: Number  # w = exp(S_i)
    ess_ratio_token_truncated: Number  # w = min(exp(Δ), 2), as verl takes it
    ess_ratio_sequence_truncated: Number  # w = min(exp(S_i), 2)


def effective_sample_size(
    sums: SequenceSums, divergences: DivergenceSums, of_tokens: Number
) -> EffectiveSampleSize:
    """of_tokens: ess_ratio_token, which has two ways to it."""
    return EffectiveSampleSize(
        ess_ratio_token=of_tokens,
        ess_ratio_sequence=ess_ratio(sums.diff),
        ess_ratio_token_truncated=kish_ratio(
            float(divergences.truncated_ratio.sum()),
            float(divergences.truncated_ratio_square.sum()),
            int(sums.length.sum()),
        ),
        ess_ratio_sequence_truncated=ess_ratio(truncated_log_weights(sums.diff)),
    )


def truncated_log_weights(log_weights: FloatArray) -> FloatArray:
    return np.minimum(log_weights, math.log(TRUNCATED_AT))


def ess_ratio(log_weights: FloatArray) -> Number:
    """From log-weights; the largest is subtracted first, which cancels and cannot overflow."""
    if not log_weights.size:
        return NO_TOKENS
    if not np.isfinite(log_weights).all():
        return OVERFLOW
    with np.errstate(over="ignore"):  # a distance of −inf is a weight of 0
        weights = np.exp(log_weights - log_weights.max())
    return kish_ratio(float(weights.sum()), dot(weights, weights), weights.size)


def kish_ratio(total: float, squares: float, count: int) -> Number:
    """From Σw, Σw² and n."""
    if not count:
        return NO_TOKENS
    if not (math.isfinite(total) and math.isfinite(squares)):
        return OVERFLOW
    if not squares:
        return ALL_ZERO
    share = total * total / (count * squares)
    return min(1.0, share)  # rounding can leave equal weights one unit in the last place above 1
