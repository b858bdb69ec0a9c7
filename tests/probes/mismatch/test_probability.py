from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import Undefined, compare
from driftscope_probes.mismatch.number import OVERFLOW
from driftscope_probes.mismatch.probability import ONE_SIDE_CONSTANT, pearson
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    flat = [token for sequence in plain(pair) for token in sequence]
    rollout = [math.exp(r) for _, r, _ in flat]
    trainer = [math.exp(t) for _, _, t in flat]
    gaps = [abs(t - r) for r, t in zip(rollout, trainer, strict=True)]
    result = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0)
    found = result.probability
    assert found.prob_abs_diff_mean == pytest.approx(math.fsum(gaps) / len(gaps), rel=1e-9)
    assert found.prob_abs_diff_max == pytest.approx(max(gaps), rel=1e-9)
    assert found.prob_abs_diff_std == pytest.approx(statistics.stdev(gaps), rel=1e-7)
    assert found.prob_pearson == pytest.approx(statistics.correlation(rollout, trainer), rel=1e-9)


def test_constant_side_is_undefined_with_a_reason_not_zero() -> None:
    varied = np.array([0.1, 0.5, 0.3])
    assert pearson(np.full(3, 0.1), varied) == ONE_SIDE_CONSTANT
    assert pearson(varied, np.full(3, 0.1)) == ONE_SIDE_CONSTANT
    single = compare(np.array([-1.0]), np.array([-2.0]), [0, 1], resamples=0).to_dict()
    assert single["prob_pearson"] is None
    assert "same probability" in single["undefined"]["prob_pearson"]


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_pearson_of_equal_sides_is_exactly_one_at_every_scale(scale: float, offset: float) -> None:
    values = offset + scale * np.array([0.1, 0.7, 0.2, 0.9])
    if values.min() == values.max():
        return
    assert pearson(values, values.copy()) == 1.0


def test_pearson_survives_values_that_differ_in_the_last_digits_only() -> None:
    ulp = 2.0**-53
    values = 1 - ulp * np.array([0.0, 1.0, 2.0, 4.0])
    assert pearson(values, values[::-1].copy()) == pytest.approx(
        statistics.correlation([0.0, 1.0, 2.0, 4.0], [4.0, 2.0, 1.0, 0.0])
    )


def test_rounding_never_lifts_a_correlation_above_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.random(7)
        assert pearson(values, 0.1 + 0.3 * values) <= 1.0  # type: ignore[operator]


def test_pearson_of_values_near_the_largest_float() -> None:
    values = np.array([1.7e308, 1.0, 1.6e308, 1.7e308])
    assert pearson(values, values.copy()) == 1.0


def test_positive_logprobs_that_overflow_are_undefined() -> None:
    result = compare(np.array([800.0, -1.0]), np.array([800.0, -1.0]), [0, 2], resamples=0)
    assert result.probability.prob_abs_diff_mean == OVERFLOW
    assert isinstance(result.probability.prob_pearson, Undefined)
    assert result.absolute_difference.abs_diff_mean == 0.0
