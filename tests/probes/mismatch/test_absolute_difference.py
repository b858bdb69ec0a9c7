from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens


def linear_quantile(rising: list[float], share: float) -> float:
    place = share * (len(rising) - 1)
    low = math.floor(place)
    high = min(low + 1, len(rising) - 1)
    return rising[low] + (place - low) * (rising[high] - rising[low])


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    by_sequence = [[t - r for _, r, t in sequence] for sequence in plain(pair)]
    diffs = [d for sequence in by_sequence for d in sequence]
    rising = sorted(abs(d) for d in diffs)
    means = [math.fsum(map(abs, sequence)) / len(sequence) for sequence in by_sequence]
    found = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0).to_dict()
    expected = {
        "abs_diff_mean": math.fsum(rising) / len(rising),
        "abs_diff_seq_mean": math.fsum(means) / len(means),
        "abs_diff_p50": linear_quantile(rising, 0.5),
        "abs_diff_p90": linear_quantile(rising, 0.9),
        "abs_diff_p95": linear_quantile(rising, 0.95),
        "abs_diff_p99": linear_quantile(rising, 0.99),
        "abs_diff_p99p9": linear_quantile(rising, 0.999),
        "abs_diff_p99p99": linear_quantile(rising, 0.9999),
        "abs_diff_max": rising[-1],
        "diff_mean": math.fsum(diffs) / len(diffs),
        "diff_std": statistics.stdev(diffs),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-15), name


def test_token_mean_and_sequence_mean_differ_for_unequal_lengths() -> None:
    trainer = np.array([-1.0, -1.0, -1.0, -4.0])
    result = compare(np.full(4, -1.0), trainer, [0, 3, 4], resamples=0).absolute_difference
    assert (result.abs_diff_mean, result.abs_diff_seq_mean) == (0.75, 1.5)
