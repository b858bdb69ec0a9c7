from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
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
    assert found.ratio_share_above_2 == sum(r > 2 for r in ratios) / n
    assert found.ratio_share_below_0p5 == sum(r < 0.5 for r in ratios) / n
    assert found.ratio_share_outside_0p8_1p2 == sum(r < 0.8 or r > 1.2 for r in ratios) / n
    assert found.ratio_abs_dev_mean == pytest.approx(
        math.fsum(abs(r - 1) for r in ratios) / n, rel=1e-9, abs=1e-16
    )
    extreme = sum(abs(t - r) > math.log(2) for s in plain(pair) for _, r, t in s)
    assert found.abs_diff_share_above_ln2 == extreme / n
    assert found.ratio_share_outside_0p9_1p1 == sum(r < 0.9 or r > 1.1 for r in ratios) / n


def test_tiny_ratios_keep_their_size() -> None:
    result = compare(np.array([-1.0]), np.array([-101.0]), [0, 1], resamples=0).ratio
    assert result.ratio_min == pytest.approx(math.exp(-100), rel=1e-14)
