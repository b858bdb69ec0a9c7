from __future__ import annotations

import statistics

import numpy as np
import pytest

from driftscope_probes.mismatch import Interval, compare
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.number import OVERFLOW, FloatArray, IntArray
from driftscope_probes.mismatch.sequences import (
    DRAWS_OF_ONE_LENGTH,
    ONE_LENGTH,
    length_slope,
    length_slope_interval,
)
from driftscope_probes.mismatch.sums import SequenceSums, sequence_sums
from driftscope_probes.tokens import checked_tokens

TRIALS, SEQUENCES = 200, 60
KNOWN_SLOPE = 2.0  # nats per 1,000 tokens
# 200 trials at 95 % spread by 1.5 points; percentile intervals of 60 sequences run narrow.
LEAST_COVERAGE, MOST_COVERAGE = 0.88, 0.99


def sums_of(length: IntArray, log_ratio: FloatArray) -> SequenceSums:
    """Sequences whose whole log-ratio sits on their first token."""
    limits = np.concatenate([[0], np.cumsum(length)])
    trainer = np.zeros(limits[-1])
    trainer[limits[:-1]] = log_ratio
    pair = checked_tokens(np.zeros(trainer.size), trainer, limits)
    return sequence_sums(token_pass(pair))


@pytest.mark.parametrize("seed", range(10))
def test_equal_to_the_standard_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 3000, 30)
    log_ratio = -0.001 * length + rng.normal(size=30)
    found = length_slope(sums_of(length, log_ratio)).seq_logratio_slope_per_1000_tokens
    expected = statistics.linear_regression(length.tolist(), log_ratio.tolist()).slope
    assert found == pytest.approx(1000 * expected, rel=1e-9)


def test_interval_covers_a_known_slope_as_often_as_it_promises() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(TRIALS):
        length = rng.integers(10, 200, SEQUENCES)
        log_ratio = KNOWN_SLOPE * length / 1000 + rng.normal(0, 0.1, SEQUENCES)
        found = length_slope_interval(sums_of(length, log_ratio), resamples=200, seed=trial)
        assert isinstance(found, Interval)
        hits += found.low <= KNOWN_SLOPE <= found.high
    assert LEAST_COVERAGE <= hits / TRIALS <= MOST_COVERAGE


def test_interval_equals_a_plain_loop_over_the_same_draws() -> None:
    rng = np.random.default_rng(3)
    length, log_ratio = rng.permutation(np.arange(5, 25)), rng.normal(size=20)
    found = length_slope_interval(sums_of(length, log_ratio), resamples=50, seed=11)
    draws = np.random.default_rng(11).integers(0, 20, size=(50, 20)).tolist()
    slopes = [
        1000 * statistics.linear_regression(length[row].tolist(), log_ratio[row].tolist()).slope
        for row in draws
    ]
    assert isinstance(found, Interval)
    expected = np.quantile(slopes, [0.025, 0.975]).tolist()
    assert [found.low, found.high] == pytest.approx(expected, rel=1e-9)


def test_reasons() -> None:
    assert (
        compare(np.zeros(4), np.zeros(4), [0, 2, 4], resamples=0).value(
            "seq_logratio_slope_per_1000_tokens"
        )
        == ONE_LENGTH
    )
    two = sums_of(np.array([1, 100_000]), np.array([0.1, 0.2]))
    assert length_slope_interval(two, resamples=50, seed=0) == DRAWS_OF_ONE_LENGTH
    pair = checked_tokens(np.full(3, 1e308), np.full(3, -0.5e308), [0, 2, 3])
    endless = length_slope(sequence_sums(token_pass(pair)))
    assert endless.seq_logratio_slope_per_1000_tokens == OVERFLOW
