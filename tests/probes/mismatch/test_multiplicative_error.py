from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.number import OVERFLOW
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    by_sequence = [[math.exp(abs(t - r)) for _, r, t in sequence] for sequence in plain(pair)]
    errors = [error for sequence in by_sequence for error in sequence]
    means = [math.fsum(sequence) / len(sequence) for sequence in by_sequence]
    result = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0)
    assert result.multiplicative_error.token_mult_prob_error == pytest.approx(
        math.fsum(errors) / len(errors), rel=1e-12
    )
    found = result.multiplicative_error
    assert found.seq_mult_prob_error_mean == pytest.approx(math.fsum(means) / len(means), rel=1e-12)
    assert found.seq_mult_prob_error_min == pytest.approx(min(means), rel=1e-12)
    assert found.seq_mult_prob_error_max == pytest.approx(max(means), rel=1e-12)


def test_a_difference_of_a_thousand_nats_is_undefined_not_infinite() -> None:
    result = compare(np.array([-1001.0]), np.array([-1.0]), [0, 1], resamples=0)
    assert result.multiplicative_error.token_mult_prob_error == OVERFLOW
