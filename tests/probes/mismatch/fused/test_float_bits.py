"""Machine operations in compiled code: against exact fractions and packed bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar, cast

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch.fused import float_bits
from driftscope_probes.mismatch.fused.block_sums import less, product, squared

MODERATE = st.floats(-1e100, 1e100).filter(lambda value: value == 0 or abs(value) > 1e-100)


Function = TypeVar("Function", bound=Callable[..., Any])


def called_from_python(function: Function) -> Function:
    return cast(Function, numba.njit(function))


@called_from_python
def multiply_add(x: float, y: float, z: float) -> float:
    return float_bits.fma(x, y, z)


@called_from_python
def there_and_back(value: float) -> tuple[int, float]:
    bits = float_bits.bits_of(value)
    return bits, float_bits.from_bits(bits)


@called_from_python
def single(value: np.float32) -> int:
    return float_bits.bits_of_single(np.float32(value))


@called_from_python
def parts(value: float, other: float) -> tuple[float, float, float]:
    return less(value, other), product(value, other), squared(value)


@settings(deadline=None)
@given(MODERATE, MODERATE, MODERATE)
def test_fma_rounds_once(x: float, y: float, z: float) -> None:
    assert multiply_add(x, y, z) == float(Fraction(x) * Fraction(y) + Fraction(z))
    assert parts(x, y) == (x - y, x * y, x * x)


def test_fma_where_two_roundings_differ() -> None:
    near_one = 1.0 + 2.0**-30
    assert multiply_add(near_one, near_one, -1.0) != near_one * near_one - 1.0


@settings(deadline=None)
@given(st.floats())
def test_bits_are_those_of_the_bytes(value: float) -> None:
    (expected,) = struct.unpack("<q", struct.pack("<d", value))
    bits, back = there_and_back(value)
    assert bits == expected and struct.pack("<d", back) == struct.pack("<d", value)
    narrow = np.float32(0.0 if np.isnan(value) or abs(value) > 3e38 else value)
    assert single(narrow) == narrow.view(np.int32)
