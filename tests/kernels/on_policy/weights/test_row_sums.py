"""Digests: equal in every layout, and different after any change of one number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.on_policy.weights.row_sums import of_packed, of_tensor
from driftscope_kernels.vllm_plugin.linear import PackedLinear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(50, 37), (64, 32), (1, 1), (33, 2)])
def test_packed_and_plain_have_the_same_rows(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed, plain = of_packed(PackedLinear(weight)), of_tensor(weight)
    assert packed.sums.tolist() == plain.sums.tolist()
    assert packed.digest(1, 17) == of_tensor(weight[1:17]).digest()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.integers(1, 40),
    st.integers(1, 9),
    st.data(),
)
def test_one_changed_bit_is_always_seen(
    dtype: torch.dtype, rows: int, width: int, data: st.DataObject
) -> None:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)).to(dtype)
    bits = weight.clone().view({2: torch.int16, 4: torch.int32}[weight.element_size()])
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, width - 1))
    bits[row, column] ^= 1 << data.draw(st.integers(0, 8 * weight.element_size() - 2))
    assert of_tensor(bits.view(dtype)).digest() != of_tensor(weight).digest()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_change_their_order_are_seen(dtype: torch.dtype) -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert of_tensor(weight.flip(0)).digest() != of_tensor(weight).digest()
    assert of_tensor(weight.flip(1)).digest() != of_tensor(weight).digest()


def test_a_tensor_is_rounded_first_where_asked() -> None:
    weight = torch.randn(1100, 6, generator=torch.Generator().manual_seed(0))
    for one in (weight, weight[:, 0]):
        assert of_tensor(one, torch.bfloat16).digest() == of_tensor(one.to(torch.bfloat16)).digest()
        assert of_tensor(one, torch.bfloat16).digest() != of_tensor(one).digest()


def test_nothing_but_zeros_is_zero() -> None:
    assert of_tensor(torch.zeros(4, 6, dtype=torch.bfloat16)).digest() == 0
    assert of_tensor(torch.tensor([0.0, -0.0])).digest() != 0
