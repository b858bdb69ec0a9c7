from __future__ import annotations

import statistics
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch import Undefined, compare
from driftscope_probes.mismatch.number import NO_TOKENS
from driftscope_probes.tokens import Tokens

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


def distance(first: float, second: float) -> float:
    found = compare([first], [second], [0, 1], resamples=0).ulp
    assert found.ulp_distance_max == found.ulp_distance_p50
    assert not isinstance(found.ulp_distance_p50, Undefined)
    return found.ulp_distance_p50


def rank(value: float) -> int:
    (bits,) = struct.unpack("i", struct.pack("f", value))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFFFFFF)


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops_over_packed_bytes(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    distances = [abs(rank(r) - rank(t)) for sequence in plain(pair) for _, r, t in sequence]
    found = compared(pair)
    assert found["ulp_distance_max"] == max(distances)
    assert found["ulp_distance_p50"] == statistics.median(distances)


@given(singles, singles)
def test_any_two_singles(first: float, second: float) -> None:
    assert distance(first, second) == abs(rank(first) - rank(second))


def test_neighbours_are_one_apart_also_across_zero() -> None:
    smallest = float(np.nextafter(np.float32(0), np.float32(1)))
    pairs = ((0.0, -0.0), (-0.0, smallest), (smallest, -smallest))
    assert [distance(first, second) for first, second in pairs] == [0, 1, 2]


def test_beyond_float32_and_nothing_at_all() -> None:
    largest = float(np.finfo(np.float32).max)
    assert distance(-1e300, -largest) == 1
    nothing = compare([np.nan], [0.0], [0, 1], resamples=0).ulp
    assert nothing.ulp_distance_max == nothing.ulp_distance_p50 == NO_TOKENS
