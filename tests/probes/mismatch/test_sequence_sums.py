from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.sums import sequence_sums
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    sums = sequence_sums(token_pass(pair))
    for place, sequence in enumerate(plain(pair)):
        diffs = [t - r for _, r, t in sequence]
        gaps = [abs(math.exp(t) - math.exp(r)) for _, r, t in sequence]
        assert sums.length[place] == len(diffs)
        assert sums.abs_diff[place] == pytest.approx(math.fsum(map(abs, diffs)), rel=1e-12)
        assert sums.kl_k2[place] == pytest.approx(math.fsum(d * d / 2 for d in diffs), rel=1e-12)
        assert sums.prob_abs_diff[place] == pytest.approx(math.fsum(gaps), rel=1e-7)


def test_means_are_over_tokens(batch: Callable[[int], Tokens]) -> None:
    pair = batch(0)
    tokens, sums = token_differences(pair), sequence_sums(token_pass(pair))
    assert sums.token_mean(sums.diff) == pytest.approx(float(tokens.diff.mean()), rel=1e-12)
