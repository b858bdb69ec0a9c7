from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    ONE_VALUE,
    OVERFLOW,
    finite,
    maximum,
    mean,
    minimum,
    unbiased_std,
)


def test_statistics_of_nothing_say_why() -> None:
    nothing = np.zeros(0)
    assert mean(nothing) == minimum(nothing) == maximum(nothing) == NO_TOKENS
    assert unbiased_std(nothing) == NO_TOKENS
    assert unbiased_std(np.ones(1)) == ONE_VALUE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_undefined(value: float) -> None:
    assert finite(value) == OVERFLOW
    assert mean(np.array([1.0, value])) == OVERFLOW
    assert unbiased_std(np.array([1.0, value])) == OVERFLOW


def test_std_divides_by_n_minus_1() -> None:
    values = [0.5, -1.25, 3.0, 0.125]
    assert unbiased_std(np.array(values)) == pytest.approx(statistics.stdev(values), rel=1e-14)
