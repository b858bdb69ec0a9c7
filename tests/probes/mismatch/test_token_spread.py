from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.number import NO_TOKENS, ONE_VALUE
from driftscope_probes.mismatch.sums import sequence_sums, token_spread, unbiased_std_of
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import Tokens, checked_tokens


@pytest.mark.parametrize("seed", range(10))
def test_equal_to_the_standard_library(seed: int, batch: Callable[[int], Tokens]) -> None:
    pair = batch(seed)
    tokens, passed = token_differences(pair), token_pass(pair)
    sums, spread = sequence_sums(passed), token_spread(passed)
    found = unbiased_std_of(sums, sums.diff, spread.diff)
    assert found == pytest.approx(statistics.stdev(tokens.diff.tolist()), rel=1e-12)
    gaps = unbiased_std_of(sums, sums.prob_abs_diff, spread.prob_abs_diff)
    assert gaps == pytest.approx(
        statistics.stdev(np.abs(tokens.trainer_prob - tokens.rollout_prob).tolist()), rel=1e-12
    )


def test_a_spread_far_smaller_than_the_mean_survives() -> None:
    trainer = 1e6 + np.array([0.0, 2.0**-20, 0.0, 2.0**-20])
    passed = token_pass(checked_tokens(np.zeros(4), trainer, [0, 2, 4]))
    sums = sequence_sums(passed)
    found = unbiased_std_of(sums, sums.diff, token_spread(passed).diff)
    assert found == pytest.approx(statistics.stdev([0.0, 2.0**-20] * 2), rel=1e-12)


def test_too_few_tokens_have_a_reason() -> None:
    for size, reason in ((0, NO_TOKENS), (1, ONE_VALUE)):
        passed = token_pass(checked_tokens(np.zeros(size), np.ones(size), [0, size]))
        sums = sequence_sums(passed)
        assert unbiased_std_of(sums, sums.diff, token_spread(passed).diff) == reason
