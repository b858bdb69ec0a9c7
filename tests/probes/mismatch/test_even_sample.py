from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch.histogram import even_sample


@given(st.integers(0, 10**7), st.integers(1, 300))
def test_places_are_valid_rising_and_bounded(size: int, limit: int) -> None:
    places = even_sample(size, limit)
    assert places.size <= min(size, limit)
    assert places.size == size if size <= limit else places.size > 0.8 * limit
    assert np.all(np.diff(places) > 0)
    assert not places.size or 0 <= places[0] <= places[-1] < size


@pytest.mark.parametrize("period", [8, 64, 512, 1000])
def test_does_not_fall_into_step_with_sequences_of_equal_length(period: int) -> None:
    phases = even_sample(period * 256, 256) % period
    assert np.unique(phases * 8 // period).size == 8  # every eighth of a sequence is seen
