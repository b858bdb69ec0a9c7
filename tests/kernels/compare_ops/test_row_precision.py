from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_kernels.compare_ops.choices import Choice, ways
from driftscope_kernels.compare_ops.precision import (
    input_roundoff,
    largest_at,
    roundoff,
    shortest_decimal,
)


@given(st.integers(1, 999), st.integers(-12, 12), st.floats(1e-6, 1e-4))
def test_a_short_number_is_found_again(digits: int, exponent: int, off: float) -> None:
    number = float(f"{digits}e{exponent}")
    found = shortest_decimal(number * (1 - off), number * (1 + off / 2))
    assert found == number


def test_no_short_number() -> None:
    assert shortest_decimal(1.23456789012, 1.23456789013) is None


def test_largest_at() -> None:
    assert largest_at(lambda x: -((x - 0.7) ** 2), -3, 5) == pytest.approx(0.7, abs=1e-7)


def test_what_an_input_loses() -> None:
    assert input_roundoff(torch.zeros(1), torch.bfloat16) == 2**-8 == roundoff(torch.bfloat16)
    assert input_roundoff(torch.zeros(1, dtype=torch.bfloat16), torch.float32) == 0
    assert input_roundoff(torch.zeros(1, dtype=torch.bfloat16), torch.float16) == 2**-11


def test_ways_begin_with_the_plain_one_and_take_the_largest_reason() -> None:
    first = (Choice("a"), Choice("b", "primitive", "b is used"))
    second = (Choice("c"), Choice("d", "dtype", "d is used"))
    found = list(ways("a, then c", first, second))
    assert [way.name for way in found] == ["plain", "d", "b", "b+d"]
    assert found[0].says == "a, then c"
    assert (found[3].reason, found[3].says) == ("dtype", "b is used, d is used")
    assert found[3].choices == ("b", "d")
