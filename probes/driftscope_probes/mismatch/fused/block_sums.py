"""Sums of the terms over a block of tokens, and squared deviations from the means."""

from __future__ import annotations

from typing import Any

from driftscope_probes.mismatch.fused.compiled import compiled, inlined, summing
from driftscope_probes.mismatch.fused.float_bits import bits_of
from driftscope_probes.mismatch.fused.layouts import BITS_OF_INFINITY, Scratch
from driftscope_probes.mismatch.fused.probability_terms import probability_terms
from driftscope_probes.mismatch.fused.ratio_terms import ratio_terms
from driftscope_probes.mismatch.terms import TRUNCATED_AT


@inlined
def squared(value: float) -> float:
    return value * value


@inlined
def less(value: float, other: float) -> float:
    """In strict arithmetic: regrouped with a sum, the difference would cancel after the fact."""
    return value - other


@inlined
def product(value: float, other: float) -> float:
    return value * other


@summing
def add_ratio_terms(scratch: Scratch, start: int, tokens: int, sums: Any, extremes: Any) -> None:
    """Of the tokens from start on."""
    rollouts, trainers = scratch.rollout, scratch.trainer
    ratios, shrinks = scratch.ratio, scratch.shrink
    shortfalls, k3s = scratch.shortfall, scratch.kl_k3
    diff_sum = abs_sum = square = k3 = reverse = ratio = deviation = ratio_diff = 0.0
    capped_sum = capped_square = mult = js = chi2 = 0.0
    top, bottom = 0, BITS_OF_INFINITY
    for i in range(start, tokens):
        diff = less(trainers[i], rollouts[i])
        of = ratio_terms(diff)
        ratios[i], shrinks[i], shortfalls[i], k3s[i] = of.ratio, of.shrink, of.shortfall, of.kl_k3
        capped = min(of.ratio, TRUNCATED_AT)
        diff_sum += diff
        abs_sum += abs(diff)
        square += squared(diff)
        k3 += of.kl_k3
        reverse += of.kl_reverse_k3
        ratio += of.ratio
        deviation += abs(of.excess)
        ratio_diff += product(of.ratio, diff)
        capped_sum += capped
        capped_square += squared(capped)
        mult += of.mult_error
        js += of.double_js
        chi2 += of.chi2
        top = max(top, bits_of(of.ratio))
        bottom = min(bottom, bits_of(of.ratio))
    sums.diff += diff_sum
    sums.abs_diff += abs_sum
    sums.square += square
    sums.kl_k3 += k3
    sums.kl_reverse_k3 += reverse
    sums.ratio += ratio
    sums.ratio_abs_dev += deviation
    sums.ratio_diff += ratio_diff
    sums.truncated_ratio += capped_sum
    sums.truncated_ratio_square += capped_square
    sums.mult_error += mult
    sums.double_js += js
    sums.chi2 += chi2
    extremes.ratio_max = max(extremes.ratio_max, top)
    extremes.ratio_min = min(extremes.ratio_min, bottom)


@summing
def add_probability_terms(
    scratch: Scratch,
    start: int,
    tokens: int,
    anchors: tuple[float, float],
    sums: Any,
    extremes: Any,
) -> None:
    """Of the tokens from start on.

    anchors: a rollout and a trainer probability of the sequence, to sum distances from.
    """
    rollouts, trainers = scratch.rollout, scratch.trainer
    shrinks, shortfalls = scratch.shrink, scratch.shortfall
    k3s, gaps = scratch.kl_k3, scratch.prob_abs_diff
    rollout_probs, trainer_probs = scratch.rollout_prob, scratch.trainer_prob
    rollout_sum = trainer_sum = gap = signed = binary = rollout_prob = trainer_prob = 0.0
    widest, top = 0, 0
    for i in range(start, tokens):
        of = probability_terms(rollouts[i], trainers[i], shrinks[i], shortfalls[i], k3s[i])
        gaps[i] = of.prob_abs_diff
        rollout_probs[i] = less(of.rollout_prob, anchors[0])
        trainer_probs[i] = less(of.trainer_prob, anchors[1])
        rollout_sum += rollouts[i]
        trainer_sum += trainers[i]
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


@summing
def block_spread(scratch: Scratch, tokens: int, block: Any, spread: Any) -> None:
    """block: the sums of this block alone, which give its means. Adds to spread."""
    rollouts, trainers, ratios = scratch.rollout, scratch.trainer, scratch.ratio
    gaps, first, second = scratch.prob_abs_diff, scratch.rollout_prob, scratch.trainer_prob
    diff_mean, ratio_mean = block.diff / tokens, block.ratio / tokens
    gap_mean = block.prob_abs_diff / tokens
    first_mean, second_mean = block.rollout_prob / tokens, block.trainer_prob / tokens
    diff = ratio = gap = first_square = second_square = both = 0.0
    for i in range(tokens):
        diff += squared(less(less(trainers[i], rollouts[i]), diff_mean))
        ratio += squared(less(ratios[i], ratio_mean))
        gap += squared(less(gaps[i], gap_mean))
        x, y = less(first[i], first_mean), less(second[i], second_mean)
        first_square += squared(x)
        second_square += squared(y)
        both += product(x, y)
    spread.diff += diff
    spread.ratio += ratio
    spread.prob_abs_diff += gap
    spread.rollout_prob += first_square
    spread.trainer_prob += second_square
    spread.prob_product += both


@compiled
def spread_between(before: Any, tokens_before: int, block: Any, tokens: int, spread: Any) -> None:
    """What the distance between the means of a block and of all before it adds to the spread."""
    if tokens_before == 0:
        return
    weight = tokens_before * (tokens / (tokens_before + tokens))
    spread.diff += weight * _apart(before.diff, tokens_before, block.diff, tokens) ** 2
    spread.ratio += weight * _apart(before.ratio, tokens_before, block.ratio, tokens) ** 2
    gap = _apart(before.prob_abs_diff, tokens_before, block.prob_abs_diff, tokens)
    spread.prob_abs_diff += weight * gap * gap
    x = _apart(before.rollout_prob, tokens_before, block.rollout_prob, tokens)
    y = _apart(before.trainer_prob, tokens_before, block.trainer_prob, tokens)
    spread.rollout_prob += weight * x * x
    spread.trainer_prob += weight * y * y
    spread.prob_product += weight * x * y


@inlined
def _apart(first: float, first_count: int, second: float, second_count: int) -> float:
    return second / second_count - first / first_count
