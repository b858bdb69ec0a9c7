"""Raw bits, ULPs and hashes, against numpy's and Python's own."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_kernels.compare_bits import bits, differing_rows, first_difference, ulps

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(FLOATS, FLOATS)
def test_ulps_are_steps_of_nextafter(a: float, b: float) -> None:
    apart = ulps(torch.tensor(a), torch.tensor(b))
    low, high = (
        struct.unpack("<i", struct.pack("<f", x))[0]
        if not np.signbit(x)
        else -struct.unpack("<i", struct.pack("<f", -x))[0]
        for x in (a, b)
    )
    assert apart == abs(low - high)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_neighbours_are_one_ulp_apart_across_zero(dtype: torch.dtype) -> None:
    tiny = torch.tensor(torch.finfo(dtype).smallest_normal, dtype=dtype)
    assert ulps(torch.tensor(0.0, dtype=dtype), torch.tensor(-0.0, dtype=dtype)) == 0
    assert ulps(tiny, -tiny) == 2 * int(bits(tiny.reshape(1))[0])


def test_zeros_of_both_signs_differ_and_equal_nans_do_not() -> None:
    left = torch.tensor([[0.0], [float("nan")], [1.0]])
    right = torch.tensor([[-0.0], [float("nan")], [1.0]])
    assert differing_rows(left, right).tolist() == [0]


def test_difference_names_index_bits_and_count() -> None:
    left = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    right = torch.tensor([[1.0, 2.015625, float("nan")]], dtype=torch.bfloat16)
    found = first_difference(left, right, 0)
    assert (found.index, found.left_bits, found.right_bits) == (1, "0x4000", "0x4001")
    assert (found.ulps, found.elements, found.of) == (1, 2, 3)
    assert first_difference(left[:, 2:], right[:, 2:], 0).ulps is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one row per row of x"):
        differing_rows(torch.zeros(2, 3), torch.zeros(2, 4))
