"""Quantiles from the few order statistics that they need: those of numpy, to the last bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch.divergences import (
    QUANTILES,
    linear_quantile,
    median_ranks,
    quantile_ranks,
    wanted_ranks,
)

VALUES = st.lists(st.floats(0, 1e300, allow_nan=False), min_size=1, max_size=60)


@given(VALUES, st.one_of(st.sampled_from(QUANTILES), st.floats(0, 1)))
def test_a_quantile_is_that_of_numpy(values: list[float], fraction: float) -> None:
    low, high, _ = quantile_ranks(fraction, len(values))
    ordered = sorted(values)
    needed = {rank: ordered[rank] for rank in (low, high)}
    assert linear_quantile(needed, fraction, len(values)) == np.quantile(values, fraction)


@given(VALUES)
def test_the_wanted_ranks_are_enough(values: list[float]) -> None:
    ordered = sorted(values)
    few = {rank: ordered[rank] for rank in wanted_ranks(len(values))}
    for fraction in QUANTILES:
        assert linear_quantile(few, fraction, len(values)) == np.quantile(values, fraction)
    middle = [ordered[rank] for rank in median_ranks(len(values))]
    assert sum(middle) / len(middle) == np.median(values)
    assert wanted_ranks(0) == median_ranks(0) == set()
