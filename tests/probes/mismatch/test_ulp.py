from __future__ import annotations

import statistics
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch.number import NO_TOKENS
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs, paired_logprobs
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.mismatch.ulp import ulp, ulp_distance

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rank(value: float) -> int:
    (bits,) = struct.unpack("i", struct.pack("f", value))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFFFFFF)


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops_over_packed_bytes(
    seed: int,
    batch: Callable[[int], PairedLogprobs],
    plain: Callable[[PairedLogprobs], list[list[tuple[int, float, float]]]],
    compared: Callable[[PairedLogprobs], dict[str, Any]],
) -> None:
    pair = batch(seed)
    distances = [abs(rank(r) - rank(t)) for sequence in plain(pair) for _, r, t in sequence]
    found = compared(pair)
    assert found["ulp_distance_max"] == max(distances)
    assert found["ulp_distance_p50"] == statistics.median(distances)


@given(singles, singles)
def test_any_two_singles(first: float, second: float) -> None:
    (found,) = ulp_distance(np.array([first]), np.array([second]))
    assert found == abs(rank(first) - rank(second))


def test_neighbours_are_one_apart_also_across_zero() -> None:
    smallest = float(np.nextafter(np.float32(0), np.float32(1)))
    first, second = np.array([0.0, -0.0, smallest]), np.array([-0.0, smallest, -smallest])
    assert ulp_distance(first, second).tolist() == [0, 1, 2]


def test_beyond_float32_and_nothing_at_all() -> None:
    largest = float(np.finfo(np.float32).max)
    assert ulp_distance(np.array([-1e300]), np.array([-largest])).tolist() == [1]
    nothing = ulp(token_differences(paired_logprobs([np.nan], [0.0], [0, 1])))
    assert nothing.ulp_distance_max == nothing.ulp_distance_p50 == NO_TOKENS
