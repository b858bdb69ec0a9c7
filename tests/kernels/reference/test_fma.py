from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftscope_kernels.reference.arithmetic import fma, fma_flushing

Float32 = npt.NDArray[np.float32]
bits32 = st.integers(0, 2**32 - 1)
LARGEST_EXPONENT = 127
MANTISSA = 24


def number(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


def nearest_even(value: Fraction, smallest_exponent: int) -> float:
    """The value rounded to 24 bits by exact integer arithmetic."""
    if value == 0:
        return 0.0
    exponent = max(
        abs(value).numerator.bit_length() - abs(value).denominator.bit_length(), smallest_exponent
    )
    if abs(value) < Fraction(2) ** exponent and exponent > smallest_exponent:
        exponent -= 1
    step = Fraction(2) ** (exponent - MANTISSA + 1)
    rounded = round(value / step) * step  # Fraction rounds halves to even
    limit = Fraction(2) ** (LARGEST_EXPONENT + 1)
    return float("inf") * (1 if value > 0 else -1) if abs(rounded) >= limit else float(rounded)


@settings(max_examples=400, deadline=None)
@given(bits32, bits32, bits32)
@example(0x00000001, 0x3F000000, 0x00000000)  # half the smallest subnormal number: ties to zero
@example(0x3F800001, 0x3F800001, 0xBF800002)  # cancels to 2^-46
@example(0x7F7FFFFF, 0x3F800001, 0xFF7FFFFF)
@example(0x3F800001, 0x3F7FFFFF, 0x33000000)
def test_fma_equals_exact_rational_arithmetic(a: int, b: int, c: int) -> None:
    x, y, z = number(a), number(b), number(c)
    got = fma(np.float32(x), np.float32(y), np.float32(z))
    if not all(np.isfinite(v) for v in (x, y, z)):
        with np.errstate(all="ignore"):
            np.testing.assert_equal(
                float(got), float(np.float64(x) * np.float64(y) + np.float64(z))
            )
        return
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    assert float(got) == nearest_even(exact, -126)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**23 - 1), st.sampled_from((1, -1)), st.booleans())
def test_sums_a_hair_from_a_tie_round_once(i: int, j: int, sign: int, negated: bool) -> None:
    """(1 + i·u)(1 − i·u)·2^-24 lies i²·2^-70 below half a step of c: float64 does not see it.

    Rounded to float64 first, to nearest, the sum would be the tie and go to the even neighbour.
    """
    step = 2.0**-23
    a = np.float32(1 + i * step)
    b = np.float32(sign * (1 - i * step) * 2.0**-24)
    c = np.float32(1 + j * step)
    if negated:
        a, c = -a, -c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    assert float(fma(a, b, c)) == nearest_even(exact, -126)


def test_the_tie_itself_goes_to_the_even_neighbour_and_a_hair_less_does_not() -> None:
    odd, half_step, hair = np.float32(1 + 2.0**-23), np.float32(2.0**-24), np.float32(2.0**-60)
    one = np.float32(1)
    assert fma(half_step, one, odd) == np.float32(1 + 2.0**-22)
    assert fma(half_step * odd, np.float32(1 - 2.0**-23), odd) == odd
    assert fma(half_step, one, one) == one
    assert fma(hair, hair, one) == one and fma(-hair, hair, odd) == odd


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tiny_results_are_flushed_after_rounding_with_an_unbounded_exponent(sign: float) -> None:
    normal = 2.0**-126
    # −2^-126 + 2^-150 rounds on the subnormal grid to −2^-126 (tie to even), with the exponent
    # unbounded it stays below: VDPBF16PS flushes it.
    product = np.float32(sign * 2.0**-75), np.float32(-(2.0**-75))
    below = fma_flushing(*product, np.float32(sign * normal))
    assert fma(*product, np.float32(sign * normal)) == np.float32(sign * normal)
    assert below == 0 and np.signbit(below) == (sign < 0)
    # A quarter of that step less than 2^-126 rounds to 2^-126 either way: kept.
    smaller = np.float32(sign * 2.0**-76), np.float32(-(2.0**-76))
    assert fma_flushing(*smaller, np.float32(sign * normal)) == np.float32(sign * normal)


@settings(max_examples=200, deadline=None)
@given(bits32, bits32, bits32)
def test_flushing_reads_and_writes_no_subnormal_number(a: int, b: int, c: int) -> None:
    values = [np.float32(number(v)) for v in (a, b, c)]
    got = fma_flushing(*values)
    assert np.isnan(got) or got == 0 or abs(got) >= np.float32(2.0**-126)
    zeros = [np.copysign(np.float32(0), v) if abs(v) < 2.0**-126 else v for v in values]
    np.testing.assert_array_equal(fma_flushing(*(np.float32(z) for z in zeros)), got)
