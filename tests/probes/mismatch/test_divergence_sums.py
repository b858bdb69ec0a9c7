from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from driftscope_probes.mismatch.binary_kl_terms import binary_kl_terms
from driftscope_probes.mismatch.divergence_sums import divergence_sums
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs
from driftscope_probes.mismatch.token_differences import token_differences


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], PairedLogprobs],
    plain: Callable[[PairedLogprobs], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    tokens = token_differences(pair)
    sums = divergence_sums(tokens, binary_kl_terms(tokens.rollout_logprob, tokens.trainer_logprob))
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


def test_every_sum_has_one_value_per_sequence(batch: Callable[[int], PairedLogprobs]) -> None:
    tokens = token_differences(batch(1))
    sums = divergence_sums(tokens, tokens.abs_diff)
    sizes = {getattr(sums, field.name).size for field in dataclasses.fields(sums)}
    assert sizes == {tokens.length.size}
