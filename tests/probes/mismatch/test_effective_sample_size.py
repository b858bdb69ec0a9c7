from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.number import NO_TOKENS, OVERFLOW
from driftscope_probes.mismatch.weights import ALL_ZERO, ess_ratio, kish_ratio
from driftscope_probes.tokens import Tokens


def kish(weights: list[float]) -> float:
    return math.fsum(weights) ** 2 / (len(weights) * math.fsum(w * w for w in weights))


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    sequences = [[t - r for _, r, t in sequence] for sequence in plain(pair)]
    result = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0)
    found = result.effective_sample_size
    tokens = [math.exp(d) for sequence in sequences for d in sequence]
    products = [math.exp(math.fsum(sequence)) for sequence in sequences]
    assert found.ess_ratio_token == pytest.approx(kish(tokens), rel=1e-12)
    assert found.ess_ratio_sequence == pytest.approx(kish(products), rel=1e-10)
    capped = [min(w, 2.0) for w in tokens], [min(w, 2.0) for w in products]
    assert found.ess_ratio_token_truncated == pytest.approx(kish(capped[0]), rel=1e-12)
    assert found.ess_ratio_sequence_truncated == pytest.approx(kish(capped[1]), rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 5000.0, -5000.0])
def test_a_common_factor_cancels_even_where_the_weights_overflow(shift: float) -> None:
    assert ess_ratio(shift + np.log([1.0, 2.0, 3.0])) == pytest.approx(36 / (3 * 14), rel=1e-9)


def test_one_weight_that_dwarfs_the_others_leaves_one_sample() -> None:
    assert ess_ratio(np.array([2000.0, 0.0, 0.0, 0.0])) == 0.25


def test_limits() -> None:
    assert ess_ratio(np.full(1000, 0.1)) == 1.0
    assert ess_ratio(np.zeros(0)) == NO_TOKENS
    assert ess_ratio(np.array([np.inf, 0.0])) == OVERFLOW


def test_truncation_hides_the_tail_that_the_raw_number_shows() -> None:
    trainer = np.array([-1.0] * 9 + [5.0])
    found = compare(np.full(10, -1.0), trainer, [0, 10], resamples=0)
    raw, truncated = found.value("ess_ratio_token"), found.value("ess_ratio_token_truncated")
    assert isinstance(raw, float) and isinstance(truncated, float)
    assert raw < 0.11 and truncated > 0.9


def test_weights_that_all_underflow_have_a_reason() -> None:
    assert kish_ratio(0.0, 0.0, 3) == ALL_ZERO
