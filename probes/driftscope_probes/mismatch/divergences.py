"""How far apart the two sides are: differences of log-probabilities and KL estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.counts import TokenCounts
from driftscope_probes.mismatch.number import (
    NEEDS_EVERY_TOKEN,
    NO_TOKENS,
    Number,
    Undefined,
    finite,
    mean,
)
from driftscope_probes.mismatch.sums import (
    DivergenceSums,
    SequenceSums,
    TokenExtremes,
    TokenSpread,
    unbiased_std_of,
)
from driftscope_probes.mismatch.terms import CHI_SQUARE_BOUND, chi_square_terms


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
    sums: SequenceSums,
    spread: TokenSpread,
    extremes: TokenExtremes,
    values: Mapping[int, float] | None,
) -> AbsoluteDifference:
    """values: order statistics of |Δ| by rank, those of quantile_ranks; None: of merged shards."""
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


def _quantile(values: Mapping[int, float] | None, share: float, count: int) -> Number:
    if not count:
        return NO_TOKENS
    return NEEDS_EVERY_TOKEN if values is None else finite(linear_quantile(values, share, count))


@dataclass(frozen=True, slots=True)
class ULP:
    """Both sides as float32; float64 input is rounded to it first. 0.0 and -0.0 are 0 apart."""

    ulp_distance_p50: Number
    ulp_distance_max: int | Undefined


def ulp(values: Mapping[int, float] | None, extremes: TokenExtremes, count: int) -> ULP:
    """values: order statistics of the distance by rank, those of median_ranks; None: of merged
    shards."""
    if not count:
        return ULP(ulp_distance_p50=NO_TOKENS, ulp_distance_max=NO_TOKENS)
    if values is None:
        return ULP(
            ulp_distance_p50=NEEDS_EVERY_TOKEN, ulp_distance_max=int(extremes.ulp_distance_max)
        )
    middle = [values[rank] for rank in median_ranks(count)]
    return ULP(
        ulp_distance_p50=sum(middle) / len(middle),
        ulp_distance_max=int(extremes.ulp_distance_max),
    )


def median_ranks(count: int) -> set[int]:
    """The one or two ranks in the middle; none of nothing."""
    return {(count - 1) // 2, count // 2} if count else set()


@dataclass(frozen=True, slots=True)
class KL:
    """Token means of Schulman's three estimators (http://joschu.net/blog/kl-approx.html)."""

    kl_k1: Number  # mean(−Δ): unbiased, either sign (verl kl, OpenRLHF vllm_kl)
    kl_k2: Number  # mean(½Δ²)
    kl_k3: Number  # mean(ρ − 1 − Δ): unbiased, never negative (verl k3_kl, prime-rl mismatch_kl)


def kl(sums: SequenceSums) -> KL:
    diff_mean = sums.token_mean(sums.diff)
    return KL(
        # 0 − x rather than −x: equal inputs give 0.0, not -0.0.
        kl_k1=diff_mean if isinstance(diff_mean, Undefined) else 0.0 - diff_mean,
        kl_k2=sums.token_mean(sums.kl_k2),
        kl_k3=sums.token_mean(sums.kl_k3),
    )


@dataclass(frozen=True, slots=True)
class ReverseKL:
    """The tokens were drawn from the rollout side, so the k3 form is a biased estimate of the KL.

    It explodes where the rollout side considers a token far likelier than the trainer does: at
    Δ = −10 it is 22 015 where kl_k3 is 9.
    """

    kl_reverse_k3: Number  # mean(1/ρ − 1 + Δ) (NeMo-RL policy_kl_error)
    kl_reverse_unbiased: Number  # mean(ρΔ): unbiased, either sign


def reverse_kl(sums: SequenceSums, divergences: DivergenceSums) -> ReverseKL:
    return ReverseKL(
        kl_reverse_k3=sums.token_mean(divergences.kl_reverse_k3),
        kl_reverse_unbiased=sums.token_mean(divergences.ratio_diff),
    )


@dataclass(frozen=True, slots=True)
class JSDivergence:
    """As NeMo-RL codes it, on the sampled tokens alone; not the textbook sum over a vocabulary."""

    js_divergence: Number  # mean of ln cosh(Δ/2) (NeMo-RL js_divergence_error)


def js_divergence(sums: SequenceSums, divergences: DivergenceSums) -> JSDivergence:
    return JSDivergence(js_divergence=sums.token_mean(divergences.js_divergence))


@dataclass(frozen=True, slots=True)
class BinaryKL:
    """KL of the two-way choice between the sampled token and all others, clamped as in OpenRLHF."""

    binary_kl_mean: Number
    binary_kl_max: Number


def binary_kl(sums: SequenceSums, divergences: DivergenceSums, extremes: TokenExtremes) -> BinaryKL:
    return BinaryKL(
        binary_kl_mean=sums.token_mean(divergences.binary_kl),
        binary_kl_max=extremes.number(extremes.binary_kl_max),
    )


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """verl's chi2_token and chi2_seq clamp log-ratios to ±20 nats; at +20 one term is e^40 = 2e17.

    A saturated number is a bound, not a measurement, hence the counts.
    """

    chi2_token: Number
    chi2_token_saturated: int  # tokens with |Δ| > 20
    chi2_seq: Number
    chi2_seq_saturated: int  # sequences with |S_i| > 20


def chi_square(sums: SequenceSums, divergences: DivergenceSums, counts: TokenCounts) -> ChiSquare:
    return ChiSquare(
        chi2_token=sums.token_mean(divergences.chi2),
        chi2_token_saturated=counts.chi2_saturated,
        chi2_seq=mean(chi_square_terms(sums.diff)),
        chi2_seq_saturated=int(np.count_nonzero(np.abs(sums.diff) > CHI_SQUARE_BOUND)),
    )
