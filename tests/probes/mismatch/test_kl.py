from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.divergences import KL
from driftscope_probes.tokens import Tokens


def kl_of(pair: Tokens) -> KL:
    return compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0).kl


@pytest.mark.parametrize("seed", range(20))
def test_estimators_equal_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    diffs = [trainer - rollout for sequence in plain(pair) for _, rollout, trainer in sequence]
    result = kl_of(pair)
    n = len(diffs)
    assert result.kl_k1 == pytest.approx(math.fsum(-d for d in diffs) / n, rel=1e-12, abs=1e-15)
    assert result.kl_k2 == pytest.approx(math.fsum(d * d / 2 for d in diffs) / n, rel=1e-12)
    assert result.kl_k3 == pytest.approx(
        math.fsum(math.expm1(d) - d for d in diffs) / n, rel=1e-7, abs=1e-22
    )


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=1, max_size=60))
def test_k3_is_not_negative_and_k1_is_within_the_mean_difference(
    tokens: list[tuple[float, float]],
) -> None:
    rollout, trainer = np.array(tokens).T
    comparison = compare(rollout, trainer, [0, len(tokens)], resamples=0)
    k1, k3 = comparison.value("kl_k1"), comparison.value("kl_k3")
    abs_diff_mean = comparison.value("abs_diff_mean")
    assert isinstance(k1, float) and isinstance(k3, float) and isinstance(abs_diff_mean, float)
    assert abs(k1) <= abs_diff_mean
    assert k3 >= 0


def test_sign_of_k1_is_that_of_a_rollout_that_is_surer_than_the_trainer() -> None:
    result = compare(np.array([-0.5]), np.array([-1.5]), [0, 1], resamples=0)
    assert result.kl.kl_k1 == 1.0
    assert result.absolute_difference.diff_mean == -1.0


def test_no_negative_zero() -> None:
    result = compare(np.array([-0.5]), np.array([-0.5]), [0, 1], resamples=0)
    assert str(result.kl.kl_k1) == "0.0"
