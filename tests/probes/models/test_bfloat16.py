"""Against torch's conversion, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from driftscope_probes.models.safetensors_file import round_to_bfloat16

# Beyond this a value rounds to infinity, which no weight is near.
LARGEST = float(torch.finfo(torch.bfloat16).max)
FINITE = st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=True)


def torch_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits: NDArray[np.uint16] = (
        torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    )
    return bits


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.integers(1, 64), elements=FINITE))
def test_equals_torch(values: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(round_to_bfloat16(values), torch_bits(values))


def test_ties_go_to_even() -> None:
    # Halves between neighbouring bfloat16 values: 1 + 1/256 down to 1, 1 + 3/256 up to 1 + 4/256.
    halves = np.array([1 + 1 / 256, 1 + 3 / 256, -(1 + 1 / 256)], np.float32)
    np.testing.assert_array_equal(round_to_bfloat16(halves), [0x3F80, 0x3F82, 0xBF80])
    np.testing.assert_array_equal(round_to_bfloat16(halves), torch_bits(halves))


def test_a_view_that_is_not_contiguous() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T / np.float32(7)
    np.testing.assert_array_equal(round_to_bfloat16(values), torch_bits(values))


def test_non_finite_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        round_to_bfloat16(np.array([np.nan], np.float32))
