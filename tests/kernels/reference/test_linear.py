from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.contract import bounds
from driftscope_kernels.reference.linear import linear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def wide_values(generator: torch.Generator, *shape: int) -> Tensor:
    """Magnitudes over three decades: rounding at every step, nothing too large for float16."""
    exponent = torch.rand(shape, generator=generator) * 3 - 2
    return torch.randn(shape, generator=generator) * 10**exponent


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.integers(0, 5),
    st.integers(1, 5),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_within_its_bound(
    dtype: torch.dtype, m: int, n: int, k: int, with_bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, weight = (wide_values(generator, rows, k).to(dtype) for rows in (m, n))
    bias = wide_values(generator, n).to(dtype) if with_bias else None
    y = linear(x, weight, bias)
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert y.dtype == dtype and y.shape == (m, n)
    assert ((y.double() - exact).abs() <= bounds.linear(x, weight, bias)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_every_batch(
    dtype: torch.dtype, rows_independent: Callable[..., None]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (wide_values(generator, rows, 37).to(dtype) for rows in (6, 5))
    rows_independent(lambda rows: linear(rows, weight), x)


def one_at_a_time(x: Tensor, weight: Tensor, order: list[int]) -> float:
    """Float16 and float32 by exact products and one float32 rounding per step, in Python floats."""
    total = np.float32(0)
    for k in order:
        # Products of float16 numbers are exact in float32; so are these sums in float64.
        total = np.float32(float(x[k]) * float(weight[k]) + float(total))
    return float(total)


def test_order_is_k_ascending_and_in_bfloat16_the_odd_element_of_a_pair_first() -> None:
    generator = torch.Generator().manual_seed(1)
    different = False
    for _ in range(20):
        x, weight = (torch.randn(8, generator=generator).bfloat16() for _ in range(2))
        half_x, half_weight = x.half(), weight.half()
        ascending, paired = list(range(8)), [1, 0, 3, 2, 5, 4, 7, 6]
        got16 = linear(half_x[None], half_weight[None], out_dtype=torch.float32).item()
        got_bf = linear(x[None], weight[None], out_dtype=torch.float32).item()
        assert got16 == one_at_a_time(half_x, half_weight, ascending)
        assert got_bf == one_at_a_time(x, weight, paired)
        different |= got_bf != one_at_a_time(x, weight, ascending)
    assert different


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [0, 2, 10])
def test_a_chain_goes_on_from_where_it_stopped(
    dtype: torch.dtype, cut: int, same_bits: Callable[..., None]
) -> None:
    generator = torch.Generator().manual_seed(2)
    x, weight = (wide_values(generator, rows, 13).to(dtype) for rows in (4, 3))
    head = linear(x[:, :cut], weight[:, :cut], out_dtype=torch.float32)
    resumed = linear(x[:, cut:], weight[:, cut:], initial=head)
    same_bits(resumed, linear(x, weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_change_no_bit(dtype: torch.dtype, same_bits: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(3)
    x, weight = (wide_values(generator, rows, 12).to(dtype) for rows in (4, 3))
    expected = linear(x, weight)
    same_bits(linear(x.T.contiguous().T, weight.T.contiguous().T), expected)
    spaced = torch.zeros(4, 24, dtype=dtype)
    spaced[:, ::2] = x
    same_bits(linear(spaced[:, ::2], weight), expected)
    same_bits(linear(x.view(2, 2, 12), weight).view(4, 3), expected)


def test_empty_sums_and_special_values() -> None:
    assert linear(torch.ones(2, 0), torch.ones(3, 0)).tolist() == [[0.0] * 3] * 2
    assert linear(torch.ones(0, 4), torch.ones(3, 4)).shape == (0, 3)
    inf = float("inf")
    x = torch.tensor([[inf, 1], [0, 1], [-inf, 1], [1, float("nan")]])
    weight = torch.tensor([[1.0, 1], [inf, 1]])
    y = linear(x, weight)
    assert y[0].tolist() == [inf, inf] and y[2].tolist() == [-inf, -inf]
    assert y[1, 0] == 1 and y[1, 1].isnan() and y[3].isnan().all()
    assert y[3].view(torch.int32).tolist() == [0x7FC00000] * 2


def test_subnormal_numbers_are_kept_but_in_bfloat16() -> None:
    tiny = 2.0**-130
    x, weight = torch.tensor([[tiny, tiny]]), torch.tensor([[1.0, 1.0]])
    assert linear(x, weight).item() == 2 * tiny
    assert linear(x.bfloat16(), weight.bfloat16()).item() == 0
    half = torch.tensor([[2.0**-24, 0]]).half()
    assert linear(half, weight.half()).item() == 2.0**-24


def test_a_k_that_eight_segments_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="K = 12 cannot be cut in 8"):
        linear(torch.ones(1, 12), torch.ones(1, 12), tp_segments=8)
    with pytest.raises(ValueError, match="tp_segments = 4"):
        linear(torch.ones(1, 16), torch.ones(1, 16), tp_segments=4)
