from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.contract import bounds
from driftscope_kernels.reference import reduction

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OPS: dict[str, Callable[..., Tensor]] = {"sum": reduction.sum, "mean": reduction.mean}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(OPS)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(0, 2),
    st.integers(0, 2**32),
)
def test_within_its_bound_along_any_dimension(
    op: str, dtype: torch.dtype, shape: list[int], dim: int, seed: int
) -> None:
    dim %= len(shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    y = OPS[op](x, (dim,))
    exact = getattr(torch, op)(x.double(), dim)
    assert y.dtype == dtype
    assert ((y.double() - exact).abs() <= getattr(bounds, op)(x, dim)).all()


@pytest.mark.parametrize(("op", "dtype"), product(OPS, DTYPES))
def test_a_row_has_the_same_bits_in_every_batch(
    op: str, dtype: torch.dtype, rows_independent: Callable[..., None]
) -> None:
    x = torch.randn(5, 53, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows_independent(lambda rows: OPS[op](rows, (1,)), x)


@pytest.mark.parametrize("op", OPS)
def test_strides_and_the_order_of_dimensions_change_no_bit(
    op: str, same_bits: Callable[..., None]
) -> None:
    x = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(1))
    expected = OPS[op](x.movedim(1, 0).reshape(5, 42), (1,))
    same_bits(OPS[op](x, (0, 2)), expected)
    same_bits(OPS[op](x, (2, 0)), expected)
    same_bits(OPS[op](x.transpose(0, 2).contiguous().transpose(0, 2), (0, 2)), expected)
    same_bits(OPS[op](x, (0, 2), keepdim=True), expected.view(1, 5, 1))


def test_nothing_and_special_values() -> None:
    assert reduction.sum(torch.ones(2, 0), (1,)).tolist() == [0, 0]
    assert reduction.mean(torch.ones(2, 0), (1,)).isnan().all()
    x = torch.tensor([[float("inf"), -float("inf")], [float("nan"), 0], [-0.0, -0.0]])
    y = reduction.sum(x, (1,))
    assert y[:2].isnan().all() and y[2:].view(torch.int32).item() == 0
    assert reduction.sum(torch.tensor(3.5), ()).item() == 3.5
