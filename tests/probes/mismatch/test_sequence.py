from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.number import ONE_VALUE
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    sequences = [[t - r for _, r, t in sequence] for sequence in plain(pair)]
    sums = [math.fsum(sequence) for sequence in sequences]
    per_token = [s / len(sequence) for s, sequence in zip(sums, sequences, strict=True)]
    found = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0).sequence
    assert found.seq_logratio_mean == pytest.approx(statistics.fmean(sums), rel=1e-10, abs=1e-14)
    assert found.seq_logratio_min == pytest.approx(min(sums), rel=1e-10, abs=1e-14)
    assert found.seq_logratio_max == pytest.approx(max(sums), rel=1e-10, abs=1e-14)
    assert found.seq_logratio_per_token_mean == pytest.approx(
        statistics.fmean(per_token), rel=1e-10, abs=1e-14
    )
    if len(sums) > 1:
        assert found.seq_logratio_std == pytest.approx(statistics.stdev(sums), rel=1e-10, abs=1e-14)
        assert found.seq_logratio_per_token_std == pytest.approx(
            statistics.stdev(per_token), rel=1e-10, abs=1e-14
        )


def test_sequences_without_tokens_do_not_enter() -> None:
    mask = np.array([1, 0, 0, 1], dtype=bool)
    diff = np.array([0.5, 9.0, 9.0, 1.0])
    result = compare(np.full(4, -2.0), -2.0 + diff, [0, 1, 3, 3, 4], mask, resamples=0)
    assert result.hygiene.sequences == 2
    assert result.sequence.seq_logratio_mean == 0.75
    assert result.sequence.seq_logratio_min == 0.5


def test_one_sequence_has_no_spread() -> None:
    result = compare(np.array([-1.0, -1.0]), np.array([-1.0, -2.0]), [0, 2], resamples=0)
    assert result.sequence.seq_logratio_std == ONE_VALUE
