"""Linear layer, interpreted: in order the bits of the reference, by tl.dot near them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.contract import bounds
from driftscope_kernels.reference.linear import linear as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels.linear import linear

INTERPRETED = True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_order_equals_the_reference(
    dtype: torch.dtype, same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x, weight, bias = (
        numbers(*shape, dtype=dtype, seed=s)
        for s, shape in enumerate([(5, 7, 24), (40, 24), (40,)])
    )
    initial = numbers(5, 7, 40, dtype=torch.float32, seed=4)
    wide: dict[str, Any] = {"out_dtype": torch.float32, "initial": initial}
    calls: list[tuple[Any, dict[str, Any]]] = [
        ((x, weight, bias), {}),
        ((x[..., :23], weight[:, :23]), wide),
        ((x, weight, bias), {"tp_segments": 8}),
        ((x[0, :, ::2], weight.t()[::2].t()), {}),
    ]
    for args, keywords in calls:
        same_bits(linear(*args, dot="in_order", **keywords), reference(*args, **keywords))


def test_subnormal_products_of_bfloat16_are_flushed(
    same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x, weight = (
        (numbers(8, 16, dtype=torch.float32, seed=s) * 2.0**-63).bfloat16() for s in (1, 2)
    )
    y = linear(x, weight, out_dtype=torch.float32, dot="in_order")
    same_bits(y, reference(x, weight, out_dtype=torch.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tl_dot_stays_within_the_bound(dtype: torch.dtype, numbers: Callable[..., Tensor]) -> None:
    x, weight = (numbers(n, 200, dtype=dtype, seed=n) for n in (70, 50))
    y = linear(x, weight)
    exact = x.double() @ weight.double().T
    assert ((y.double() - exact).abs() <= bounds.linear(x, weight)).all()


def test_same_bits_alone_and_in_any_batch(
    same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x, weight = (numbers(n, 12, dtype=torch.bfloat16, seed=n) for n in (35, 9))
    whole = linear(x, weight, dot="in_order")
    for row in (0, 31, 32):
        same_bits(linear(x[row : row + 1], weight, dot="in_order"), whole[row : row + 1])


def test_refuses_other_numbers_of_segments() -> None:
    with pytest.raises(ValueError, match="tp_segments = 3: 1 and 8 are accepted"):
        linear(torch.ones(2, 24), torch.ones(3, 24), tp_segments=3)
