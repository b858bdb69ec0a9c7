"""Terms of tokens whose sides are close, and their sums over a block."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from driftscope_probes.mismatch.fused.block_sums import less, product, squared
from driftscope_probes.mismatch.fused.compiled import compiled, inlined, summing
from driftscope_probes.mismatch.fused.exp_log import power_of_two, reduced, series
from driftscope_probes.mismatch.fused.float_bits import bits_of, fma
from driftscope_probes.mismatch.fused.layouts import BITS_OF_INFINITY, Scratch
from driftscope_probes.mismatch.fused.probability_terms import HIGHEST, LOWEST, rest_kl

# Up to here exp(Δ) needs no power of two beside its series.
CLOSE_DIFF = 0.5 * math.log(2.0)

# 2 ln cosh(y / 2) / y² as a polynomial in y² up to CLOSE_DIFF², fitted at Chebyshev's points:
# relative error 1.8e-16 beside 8e-16 of a Taylor series with one term more.
J0, J1, J2, J3, J4, J5 = (
    0.24999999999999994,
    -0.010416666666639995,
    0.0006944444418518866,
    -5.270328077718071e-05,
    4.269898985002843e-06,
    -3.4958153450895366e-07,
)


class CloseRatioTerms(NamedTuple):
    """Of ρ = 1 + Δ + even + odd, with even and odd in Δ: all others are sums of these."""

    square: float  # Δ²
    even: float  # cosh Δ − 1
    odd: float  # sinh Δ − Δ
    excess: float  # ρ − 1, without cancellation
    shortfall: float  # 1 − exp(−|Δ|), without cancellation
    double_js: float  # 2 ln cosh(Δ/2)


class CloseProbabilityTerms(NamedTuple):
    rollout_prob: float
    trainer_prob: float
    prob_abs_diff: float
    prob_diff: float  # p_trainer − p_rollout
    binary_kl: float


@inlined
def is_close(rollout: float, trainer: float) -> bool:
    """|Δ| needs no reduction and OpenRLHF's clamps move neither probability."""
    close = abs(trainer - rollout) <= CLOSE_DIFF
    return close & (min(rollout, trainer) >= LOWEST) & (max(rollout, trainer) <= HIGHEST)


@inlined
def close_ratio_terms(diff: float) -> CloseRatioTerms:
    square = diff * diff
    even_part, odd_part = series(square)
    even, odd = square * even_part, diff * square * odd_part
    fourth = square * square
    js = fma(fourth, fma(fourth, fma(square, J5, J4), fma(square, J3, J2)), fma(square, J1, J0))
    shortfall = abs(diff) - (even - abs(odd))
    return CloseRatioTerms(square, even, odd, diff + (even + odd), shortfall, square * js)


@inlined
def larger_probability(rollout: float, trainer: float) -> tuple[float, float]:
    """(p, 1 − p) of the side where p is larger, neither of them with cancellation."""
    biased, rest = reduced(max(rollout, trainer))
    square = rest * rest
    even, odd = series(square)
    curved = fma(square, fma(rest, odd, even), rest)
    scale = power_of_two(biased)
    return fma(scale, curved, scale), fma(-scale, curved, 1.0 - scale)


@inlined
def close_probability_terms(
    rises: bool, larger: float, rest_of_larger: float, shortfall: float, kl_k3: float
) -> CloseProbabilityTerms:
    """As probability_terms(), without what clamps and overflow need; rises: trainer > rollout."""
    gap = larger * shortfall
    smaller, rest_of_smaller = larger - gap, rest_of_larger + gap
    rollout_prob, trainer_prob = (smaller, larger) if rises else (larger, smaller)
    prob_diff = gap if rises else -gap
    rollout_rest = rest_of_smaller if rises else rest_of_larger
    trainer_rest = rest_of_larger if rises else rest_of_smaller
    binary_kl = rollout_prob * kl_k3 + rest_kl(rollout_rest, trainer_rest, -prob_diff)
    return CloseProbabilityTerms(rollout_prob, trainer_prob, gap, prob_diff, binary_kl)


@compiled
def close_first(scratch: Scratch, tokens: int) -> None:
    """Reorder a block: close tokens, then the others, both in their order.

    Which tokens are close depends on nothing but themselves, so that the sums of a sequence do not
    change with what stands beside it. ratio and shrink, not filled yet, hold the others meanwhile.
    """
    rollouts, trainers = scratch.rollout, scratch.trainer
    other_rollouts, other_trainers = scratch.ratio, scratch.shrink
    close = others = 0
    for i in range(tokens):
        rollout, trainer = rollouts[i], trainers[i]
        rollouts[close], trainers[close] = rollout, trainer
        other_rollouts[others], other_trainers[others] = rollout, trainer
        stays = int(is_close(rollout, trainer))
        close += stays
        others += 1 - stays
    for i in range(others):
        rollouts[close + i], trainers[close + i] = other_rollouts[i], other_trainers[i]


@summing
def add_close_ratio_terms(scratch: Scratch, tokens: int, sums: Any, extremes: Any) -> None:
    """Σρ is n + ΣΔ + Σk3, and so on: fewer running sums than names."""
    rollouts, trainers = scratch.rollout, scratch.trainer
    ratios, shortfalls, k3s = scratch.ratio, scratch.shortfall, scratch.kl_k3
    diff_sum = abs_sum = square = k3 = reverse = grown = 0.0
    deviation = excess_diff = excess_square = js = 0.0
    top, bottom = 0, BITS_OF_INFINITY
    for i in range(tokens):
        diff = less(trainers[i], rollouts[i])
        of = close_ratio_terms(diff)
        ratio = less(of.excess, -1.0)
        ratios[i], shortfalls[i], k3s[i] = ratio, of.shortfall, less(of.even, -of.odd)
        diff_sum += diff
        abs_sum += abs(diff)
        square += of.square
        k3 += k3s[i]
        reverse += less(of.even, of.odd)
        grown += less(of.even, -abs(of.odd))
        deviation += abs(of.excess)
        excess_diff += product(of.excess, diff)
        excess_square += squared(of.excess)
        js += of.double_js
        top = max(top, bits_of(ratio))
        bottom = min(bottom, bits_of(ratio))
    excess = diff_sum + k3
    chi2 = excess_square + 2.0 * excess
    sums.diff += diff_sum
    sums.abs_diff += abs_sum
    sums.square += square
    sums.kl_k3 += k3
    sums.kl_reverse_k3 += reverse
    sums.ratio += tokens + excess
    sums.ratio_abs_dev += deviation
    sums.ratio_diff += diff_sum + excess_diff
    sums.truncated_ratio += tokens + excess
    sums.truncated_ratio_square += tokens + chi2
    sums.mult_error += tokens + (abs_sum + grown)
    sums.double_js += js
    sums.chi2 += chi2
    extremes.ratio_max = max(extremes.ratio_max, top)
    extremes.ratio_min = min(extremes.ratio_min, bottom)


@summing
def add_close_probability_terms(
    scratch: Scratch,
    tokens: int,
    anchors: tuple[float, float],
    sums: Any,
    extremes: Any,
) -> None:
    """anchors: a rollout and a trainer probability of the sequence, to sum distances from."""
    rollouts, trainers = scratch.rollout, scratch.trainer
    shortfalls, k3s, gaps = scratch.shortfall, scratch.kl_k3, scratch.prob_abs_diff
    rollout_probs, trainer_probs = scratch.rollout_prob, scratch.trainer_prob
    rollout_sum = trainer_sum = gap = signed = binary = rollout_prob = trainer_prob = 0.0
    widest, top = 0, 0
    larger, rest_of_larger = scratch.shrink, scratch.prob_abs_diff
    # A loop of its own: so many steps wait on each other that in one loop with what follows, the
    # processor could not hold enough tokens at a time to be busy.
    for i in range(tokens):
        larger[i], rest_of_larger[i] = larger_probability(rollouts[i], trainers[i])
        rollout_sum += rollouts[i]
        trainer_sum += trainers[i]
    for i in range(tokens):
        rises = trainers[i] > rollouts[i]
        of = close_probability_terms(rises, larger[i], rest_of_larger[i], shortfalls[i], k3s[i])
        gaps[i] = of.prob_abs_diff
        rollout_probs[i] = less(of.rollout_prob, anchors[0])
        trainer_probs[i] = less(of.trainer_prob, anchors[1])
        gap += of.prob_abs_diff
        signed += of.prob_diff
        binary += of.binary_kl
        rollout_prob += rollout_probs[i]
        trainer_prob += trainer_probs[i]
        widest = max(widest, bits_of(of.prob_abs_diff))
        top = max(top, bits_of(of.binary_kl))
    sums.rollout_logprob += rollout_sum
    sums.trainer_logprob += trainer_sum
    sums.prob_abs_diff += gap
    sums.prob_diff += signed
    sums.binary_kl += binary
    sums.rollout_prob += rollout_prob
    sums.trainer_prob += trainer_prob
    extremes.prob_abs_diff_max = max(extremes.prob_abs_diff_max, widest)
    extremes.binary_kl_max = max(extremes.binary_kl_max, top)
