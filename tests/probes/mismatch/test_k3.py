from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftscope_probes.mismatch.terms import SERIES_BELOW, k3_terms

# expm1(Δ) − Δ just above SERIES_BELOW: one rounding of Δ (2⁻⁵³ · 1e-2) over ½Δ² = 5e-5.
RELATIVE_BOUND = 4e-14

DIFFS = np.array(
    [s * v for s in (1, -1) for v in (1e-12, 1e-9, 1e-6, 3e-4, 9.99e-3, 1e-2, 0.1, 1, 12, 80)]
)


def worst_relative_error(k3: Callable[[NDArray[Any]], NDArray[Any]], diffs: NDArray[Any]) -> float:
    """Against exp(Δ) − 1 − Δ in 60 decimal digits."""
    with localcontext() as context:
        context.prec = 60
        exact = [Decimal(d).exp() - 1 - Decimal(d) for d in diffs.tolist()]
        given_values = [Decimal(v) for v in k3(diffs).tolist()]
        return max(float(abs(g / e - 1)) for g, e in zip(given_values, exact, strict=True))


def naive_float32(diff: NDArray[Any]) -> NDArray[Any]:
    narrow = diff.astype(np.float32)
    result: NDArray[Any] = np.exp(narrow) - np.float32(1) - narrow
    return result


def naive_float64(diff: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = np.exp(diff) - 1 - diff
    return result


def test_accurate_from_tiny_to_huge_differences() -> None:
    assert worst_relative_error(k3_terms, DIFFS) < RELATIVE_BOUND


def test_a_millionth_is_right_to_nine_digits_and_the_usual_ways_are_caught() -> None:
    millionth = np.array([1e-6, -1e-6])
    assert worst_relative_error(k3_terms, millionth) < 1e-9
    assert worst_relative_error(naive_float32, millionth) > 1
    assert worst_relative_error(naive_float64, millionth) > 1e-9


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_series_and_expm1_meet_without_a_step(sign: float) -> None:
    edge = sign * np.array([np.nextafter(SERIES_BELOW, 0), SERIES_BELOW])
    below, above = k3_terms(edge)
    assert below == pytest.approx(above, rel=RELATIVE_BOUND)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_never_negative(diff: float) -> None:
    assert k3_terms(np.array([diff]))[0] >= 0
