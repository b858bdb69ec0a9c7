"""Sums over the close tokens of a block, which are nearly all tokens wherever both sides agree.

In: a block whose close tokens stand first. Out: the same row of sums and extremes as block_sums.
"""

from __future__ import annotations

from typing import Any

from driftscope_probes.mismatch.fused.block_sums import less, product, squared
from driftscope_probes.mismatch.fused.close_terms import (
    close_probability_terms,
    close_ratio_terms,
    is_close,
    larger_probability,
)
from driftscope_probes.mismatch.fused.compiled import compiled, summing
from driftscope_probes.mismatch.fused.float_bits import bits_of
from driftscope_probes.mismatch.fused.layouts import BITS_OF_INFINITY, Scratch


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
