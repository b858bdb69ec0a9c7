from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.number import NO_TOKENS, OVERFLOW
from driftscope_probes.mismatch.sums import TokenExtremes, token_extremes
from driftscope_probes.tokens import checked_tokens


def extremes(rollout: list[float], trainer: list[float]) -> TokenExtremes:
    pair = checked_tokens(np.array(rollout), np.array(trainer), [0, len(rollout)])
    return token_extremes(token_pass(pair))


def test_no_tokens_leave_a_merge_alone_and_report_why() -> None:
    nothing, one = extremes([], []), extremes([-1.0], [-1.5])
    assert nothing.merged(one) == one.merged(nothing) == one
    assert nothing.number(nothing.ratio_min) == NO_TOKENS


def test_merging_is_the_whole_in_either_order() -> None:
    first, second = extremes([-1.0, -2.0], [-1.5, -2.25]), extremes([-3.0], [-1.0])
    whole = extremes([-1.0, -2.0, -3.0], [-1.5, -2.25, -1.0])
    assert first.merged(second) == second.merged(first) == whole
    assert (whole.abs_diff_max, whole.ratio_min) == (2.0, math.exp(-0.5))


def test_an_overflow_survives_every_merge() -> None:
    broken, sound = extremes([800.0], [801.0]), extremes([-1.0], [-1.5])
    for merged in (broken.merged(sound), sound.merged(broken)):
        assert merged.number(merged.prob_abs_diff_max) == OVERFLOW
