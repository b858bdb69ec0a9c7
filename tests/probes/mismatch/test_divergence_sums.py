from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.sums import divergence_sums
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    sums = divergence_sums(token_pass(pair))
    for place, sequence in enumerate(plain(pair)):
        ratios = [math.exp(t - r) for _, r, t in sequence]
        expected = {
            "rollout_logprob": math.fsum(r for _, r, _ in sequence),
            "trainer_logprob": math.fsum(t for _, _, t in sequence),
            "ratio": math.fsum(ratios),
            "ratio_abs_dev": math.fsum(abs(math.expm1(t - r)) for _, r, t in sequence),
            "truncated_ratio": math.fsum(min(ratio, 2.0) for ratio in ratios),
            "truncated_ratio_square": math.fsum(min(ratio, 2.0) ** 2 for ratio in ratios),
            "mult_error": math.fsum(math.exp(abs(t - r)) for _, r, t in sequence),
            "prob_diff": math.fsum(math.exp(t) - math.exp(r) for _, r, t in sequence),
        }
        for name, value in expected.items():
            found = getattr(sums, name)[place]
            assert found == pytest.approx(value, rel=1e-11, abs=1e-14), name


def test_every_sum_has_one_value_per_sequence(batch: Callable[[int], Tokens]) -> None:
    found = token_pass(batch(1))
    sums = divergence_sums(found)
    sizes = {getattr(sums, field.name).size for field in dataclasses.fields(sums)}
    assert sizes == {np.count_nonzero(found.rows["kept"])}
