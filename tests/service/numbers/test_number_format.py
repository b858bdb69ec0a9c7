"""Three significant digits, and never a 0, 1 or 100% that is not exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.numbers.metric_words import (
    near_one,
    number,
    one_minus,
    seconds,
    share,
    shared_exponent,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (512, "512"),
        (7810, "7,810"),
        (7.5, "7.50"),
        (0.012345, "0.0123"),
        (0.0009996, "0.00100"),
        (0.0009994, "9.99e-4"),
        (3.58e-11, "3.58e-11"),
        (65504.0, "65,504"),
        (99999.7, "1.00e5"),
        (-1.46e-4, "-1.46e-4"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-300, 1e300), st.sampled_from([1, -1]))
def test_number_reads_back_to_three_digits(size: float, sign: int) -> None:
    value = sign * size
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0%"), (1.0, "100%"), (0.00781, "0.781%"), (0.5, "50.0%")]
)
def test_share(value: float, text: str) -> None:
    assert share(value) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_share_is_whole_only_where_it_is_exact(value: float) -> None:
    assert float(share(value).removesuffix("%")) not in (0, 100)


@given(st.floats(0.5, 2).filter(lambda value: value != 1))
def test_near_one_is_1_only_where_it_is_exact(value: float) -> None:
    assert float(near_one(value)) != 1


def test_near_one_shows_two_digits_of_the_distance() -> None:
    assert [near_one(value) for value in (1.0, 0.99970, 1.0000051, 0.42)] == [
        "1",
        "0.99970",
        "1.0000051",
        "0.420",
    ]


def test_one_minus_claims_no_more_than_float64_knows() -> None:
    assert one_minus(0.99943) == "5.70e-4"
    assert one_minus(1.0) == "<1.00e-15"


def test_shared_exponent() -> None:
    assert shared_exponent(4.67e-6, 5.64e-6) == "(4.67 – 5.64)e-6"
    assert shared_exponent(9.5e-6, 1.1e-5) == "(0.950 – 1.10)e-5"
    assert shared_exponent(0.0134, 0.016) == "0.0134 – 0.0160"
    assert shared_exponent(-1e-6, 2e-6) == "-1.00e-6 – 2.00e-6"


def test_seconds() -> None:
    assert [seconds(value) for value in (134.94, 0.412, 0.0)] == ["134.9 s", "0.41 s", "0.00 s"]
