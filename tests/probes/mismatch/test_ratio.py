from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.number import NO_TOKENS
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs
from driftscope_probes.mismatch.ratio import WIDE_BAND, share_outside


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], PairedLogprobs],
    plain: Callable[[PairedLogprobs], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    ratios = [math.exp(t - r) for sequence in plain(pair) for _, r, t in sequence]
    n = len(ratios)
    found = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0).ratio
    assert found.ratio_mean == pytest.approx(math.fsum(ratios) / n, rel=1e-12)
    assert found.ratio_min == pytest.approx(min(ratios), rel=1e-14)
    assert found.ratio_max == pytest.approx(max(ratios), rel=1e-14)
    assert found.ratio_std == pytest.approx(statistics.stdev(ratios), rel=1e-7)
    assert found.ratio_share_outside_0p5_2 == sum(r < 0.5 or r > 2 for r in ratios) / n
    assert found.ratio_share_outside_0p9_1p1 == sum(r < 0.9 or r > 1.1 for r in ratios) / n


def test_the_band_is_closed_and_nothing_gives_no_share() -> None:
    assert share_outside(np.array([0.5, 2.0]), WIDE_BAND) == 0
    assert share_outside(np.nextafter([0.5, 2.0], [0.0, 3.0]), WIDE_BAND) == 1
    assert share_outside(np.zeros(0), WIDE_BAND) == NO_TOKENS


def test_tiny_ratios_keep_their_size() -> None:
    result = compare(np.array([-1.0]), np.array([-101.0]), [0, 1], resamples=0).ratio
    assert result.ratio_min == pytest.approx(math.exp(-100), rel=1e-14)
