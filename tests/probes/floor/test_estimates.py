"""Estimates of sigma: against planted noise, with intervals over sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftscope_probes.floor.estimates import Estimate, estimate, joined, sequence_sums

CU_SEQLENS = np.arange(0, 4001, 100)
RNG = np.random.default_rng(1)
ROLLOUT = np.log(RNG.beta(0.9, 0.5, 4000).clip(1e-4, 1 - 1e-4))
NOISE = (1 - np.exp(ROLLOUT)) * RNG.normal(size=4000)


def test_planted_noise_is_found_and_inside_its_interval() -> None:
    found = estimate(0.07 * NOISE, ROLLOUT, CU_SEQLENS)
    assert found is not None and found.interval is not None
    assert found.sigma == pytest.approx(0.07, rel=0.06)
    assert found.interval[0] < found.sigma < found.interval[1]
    assert (found.tokens, found.sequences) == (4000, 40)


def test_tokens_that_were_not_scored_take_no_part() -> None:
    difference = 0.07 * NOISE
    difference[:2000] = np.nan
    found = estimate(difference, ROLLOUT, CU_SEQLENS)
    half = estimate(difference[2000:], ROLLOUT[2000:], CU_SEQLENS[:21])
    assert found is not None and half is not None and found.interval == half.interval
    assert found.sigma == pytest.approx(half.sigma) and found.sequences == 20


def test_one_sequence_has_no_interval_and_no_token_no_estimate() -> None:
    one = estimate(NOISE[:100], ROLLOUT[:100], CU_SEQLENS[:2])
    assert one is not None and one.interval is None
    assert estimate(np.full(100, np.nan), ROLLOUT[:100], CU_SEQLENS[:2]) is None
    assert estimate(NOISE[:100], np.zeros(100), CU_SEQLENS[:2]) is None


def test_empty_sequences_add_nothing() -> None:
    limits = np.array([0, 0, 3, 3, 5, 5])
    numbers = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    sums = sequence_sums(numbers, numbers, np.full(5, -1.0), limits)
    assert sums.squares.tolist() == [0.0, 5.0, 0.0, 25.0, 0.0]


def test_independent_errors_add_as_squares() -> None:
    both = joined(Estimate(3.0, (2.0, 4.0), 10, 2), Estimate(4.0, (3.0, 5.0), 8, 3))
    assert both == Estimate(5.0, (math.hypot(2, 3), math.hypot(4, 5)), 8, 2)
    assert joined(both, Estimate(1.0, None, 8, 1)).interval is None
