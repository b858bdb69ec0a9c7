"""Spread within one sequence: squared distances from the mean, block by block (Chan et al. 1979).

In: what add_ratio_terms and add_probability_terms left of a block. Out: one row per sequence.
"""

from __future__ import annotations

from typing import Any

from driftscope_probes.mismatch.fused.block_sums import less, product, squared
from driftscope_probes.mismatch.fused.compiled import compiled, inlined, summing
from driftscope_probes.mismatch.fused.layouts import Scratch


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
