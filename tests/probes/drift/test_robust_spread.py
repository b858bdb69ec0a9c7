"""Qn: right for Gaussian values, unmoved by outliers, never 0."""

from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.drift.cusum import robust_spread


@pytest.mark.parametrize("count", [10, 20, 21])
def test_gaussian_values(count: int) -> None:
    rng = np.random.default_rng(0)
    found = [robust_spread(rng.normal(5.0, 2.0, count)) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(2.0, rel=0.03)


def test_outliers_move_it_little() -> None:
    values = np.random.default_rng(1).normal(size=20)
    clean = robust_spread(values)
    values[:5] = 1e9
    assert robust_spread(values) < 3 * clean


def test_mostly_equal_values_have_a_spread() -> None:
    values = np.zeros(20)
    values[3] = 1.0
    assert robust_spread(values) == pytest.approx(values.std(ddof=1))
