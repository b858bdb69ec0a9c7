"""What one pass over the tokens leaves per sequence: sums and spread; and extremes over all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    ONE_VALUE,
    FloatArray,
    IntArray,
    Number,
    dot,
    finite,
)


@dataclass(frozen=True, slots=True)
class SequenceSums:
    """Sums over the kept tokens of each sequence that has any; overflow shows as infinity."""

    given_sequences: int  # the empty ones included
    sequence_index: IntArray  # [sequences] index among the given sequences
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


@dataclass(frozen=True, slots=True)
class DivergenceSums:
    """Sums over the kept tokens of each sequence that has any; overflow shows as infinity."""

    rollout_logprob: FloatArray  # nats
    trainer_logprob: FloatArray  # nats
    ratio: FloatArray  # Σ ρ
    ratio_abs_dev: FloatArray  # Σ |ρ − 1|
    ratio_diff: FloatArray  # Σ ρΔ
    truncated_ratio: FloatArray  # Σ min(ρ, 2)
    truncated_ratio_square: FloatArray  # Σ min(ρ, 2)²
    mult_error: FloatArray  # Σ exp(|Δ|)
    prob_diff: FloatArray  # Σ (p_trainer − p_rollout)
    kl_reverse_k3: FloatArray  # Σ (1/ρ − 1 + Δ)
    js_divergence: FloatArray  # Σ ln cosh(Δ/2)
    binary_kl: FloatArray
    chi2: FloatArray  # Σ (ρ² − 1), Δ clamped


def divergence_sums(found: TokenPass) -> DivergenceSums:
    of = found.sums[found.rows["kept"] > 0]
    return DivergenceSums(
        rollout_logprob=of["rollout_logprob"],
        trainer_logprob=of["trainer_logprob"],
        ratio=of["ratio"],
        ratio_abs_dev=of["ratio_abs_dev"],
        ratio_diff=of["ratio_diff"],
        truncated_ratio=of["truncated_ratio"],
        truncated_ratio_square=of["truncated_ratio_square"],
        mult_error=of["mult_error"],
        prob_diff=of["prob_diff"],
        kl_reverse_k3=of["kl_reverse_k3"],
        js_divergence=0.5 * of["double_js"],
        binary_kl=of["binary_kl"],
        chi2=of["chi2"],
    )


@dataclass(frozen=True, slots=True, eq=False)
class TokenSpread:
    """Σ (x − mean of the sequence)² over the tokens of each sequence, and Σ ρ²; [sequences]."""

    diff: FloatArray
    ratio: FloatArray
    prob_abs_diff: FloatArray
    ratio_square: FloatArray


def token_spread(found: TokenPass) -> TokenSpread:
    present = found.rows["kept"] > 0
    of, sums, length = found.spread[present], found.sums[present], found.rows["kept"][present]
    with np.errstate(over="ignore", invalid="ignore"):
        ratio_square = of["ratio"] + sums["ratio"] * (sums["ratio"] / length)
    return TokenSpread(
        diff=of["diff"],
        ratio=of["ratio"],
        prob_abs_diff=of["prob_abs_diff"],
        ratio_square=ratio_square,
    )


def unbiased_std_of(sums: SequenceSums, values: FloatArray, within: FloatArray) -> Number:
    """Std of all tokens together, from each sequence's sums and spread (Chan et al. 1979)."""
    count = int(sums.length.sum())
    if not count:
        return NO_TOKENS
    if count == 1:
        return ONE_VALUE
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        between = values / sums.length - values.sum() / count
        squares = within.sum() + dot(sums.length, between * between)
        return finite(float(np.sqrt(squares / (count - 1))))


@dataclass(frozen=True, slots=True)
class TokenExtremes:
    """Without tokens a maximum is −inf and a minimum +inf, which leave any other value alone."""

    abs_diff_max: float  # nats
    ratio_min: float
    ratio_max: float
    prob_abs_diff_max: float
    binary_kl_max: float  # nats
    ulp_distance_max: float  # float32 numbers

    def number(self, extreme: float) -> Number:
        """The value as a report shows it, or why there is none."""
        return NO_TOKENS if self.abs_diff_max == -math.inf else finite(extreme)

    def merged(self, other: TokenExtremes) -> TokenExtremes:
        return TokenExtremes(
            abs_diff_max=_larger(self.abs_diff_max, other.abs_diff_max),
            ratio_min=_smaller(self.ratio_min, other.ratio_min),
            ratio_max=_larger(self.ratio_max, other.ratio_max),
            prob_abs_diff_max=_larger(self.prob_abs_diff_max, other.prob_abs_diff_max),
            binary_kl_max=_larger(self.binary_kl_max, other.binary_kl_max),
            ulp_distance_max=_larger(self.ulp_distance_max, other.ulp_distance_max),
        )


def token_extremes(found: TokenPass) -> TokenExtremes:
    if not found.rows["kept"].any():
        return TokenExtremes(-math.inf, math.inf, *[-math.inf] * 4)
    return TokenExtremes(
        abs_diff_max=found.extreme("abs_diff_max"),
        ratio_min=found.extreme("ratio_min"),
        ratio_max=found.extreme("ratio_max"),
        prob_abs_diff_max=found.extreme("prob_abs_diff_max"),
        binary_kl_max=found.extreme("binary_kl_max"),
        ulp_distance_max=found.extreme("ulp_distance_max"),
    )


def _larger(first: float, second: float) -> float:
    """NaN, an overflow on both sides of a token, wins in either order."""
    return float(np.maximum(first, second))


def _smaller(first: float, second: float) -> float:
    return float(np.minimum(first, second))
