"""Divergences between the two sides, estimated from the sampled tokens; numbers in nats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.counts import TokenCounts
from driftscope_probes.mismatch.number import Number, Undefined, mean
from driftscope_probes.mismatch.sums import DivergenceSums, SequenceSums, TokenExtremes
from driftscope_probes.mismatch.terms import CHI_SQUARE_BOUND, chi_square_terms


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
