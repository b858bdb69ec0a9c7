from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.contract import bounds
from driftscope_kernels.reference.softmax import log_softmax, logsumexp, softmax

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FAMILY: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
}
INF, NAN = float("inf"), float("nan")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FAMILY)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.integers(0, 2),
    st.sampled_from((0.1, 3.0, 60.0)),
    st.integers(0, 2**32),
)
def test_within_its_bound_along_any_dimension(
    op: str, dtype: torch.dtype, shape: list[int], dim: int, scale: float, seed: int
) -> None:
    dim %= len(shape)
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)
    y = FAMILY[op](x, dim)
    exact = getattr(torch, op)(x.double(), dim)
    assert y.dtype == dtype and y.shape == exact.shape
    assert ((y.double() - exact).abs() <= getattr(bounds, op)(x, dim)).all()


@pytest.mark.parametrize(("op", "dtype"), product(FAMILY, DTYPES))
def test_a_row_has_the_same_bits_in_every_batch(
    op: str, dtype: torch.dtype, rows_independent: Callable[..., None]
) -> None:
    x = (torch.randn(5, 53, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    rows_independent(lambda rows: FAMILY[op](rows, -1), x)


@pytest.mark.parametrize("op", FAMILY)
def test_strides_and_the_place_of_the_dimension_change_no_bit(
    op: str, same_bits: Callable[..., None]
) -> None:
    x = torch.randn(3, 4, 33, generator=torch.Generator().manual_seed(1))
    expected = FAMILY[op](x, -1)
    for dim in (0, 1):
        moved = FAMILY[op](x.movedim(-1, dim).contiguous(), dim)
        same_bits(moved if op == "logsumexp" else moved.movedim(dim, -1), expected)
    same_bits(FAMILY[op](x.transpose(0, 2).contiguous().transpose(0, 2), -1), expected)


@pytest.mark.parametrize("op", FAMILY)
def test_special_rows_are_those_of_torch(op: str) -> None:
    x = torch.tensor(
        [
            [NAN, 1, 2],
            [INF, 1, 2],
            [INF, INF, 0],
            [-INF, 1, 2],
            [-INF, -INF, -INF],
            [-INF, -INF, 5],
            [3e38, -3e38, 0],
            [0.0, -0.0, 1e-45],
        ]
    )
    torch.testing.assert_close(FAMILY[op](x, -1), getattr(torch, op)(x, -1), equal_nan=True)


def test_every_nan_is_the_quiet_one() -> None:
    x = torch.tensor([[NAN, 1.0]]).view(torch.int32)
    x[0, 0] = 0xFF812345 - (1 << 32)  # negative, signalling, with a payload
    bits = softmax(x.view(torch.float32), -1).view(torch.int32)
    assert bits.tolist() == [[0x7FC00000, 0x7FC00000]]


def test_one_element_and_none() -> None:
    one = torch.tensor([[-7.5]])
    assert softmax(one, -1).item() == 1 and log_softmax(one, -1).item() == 0
    assert logsumexp(one, -1).item() == -7.5
    assert softmax(torch.ones(2, 0), -1).shape == (2, 0)
    assert logsumexp(torch.ones(2, 0), -1).tolist() == [-INF, -INF]
    assert softmax(torch.ones(0, 2), -1).shape == (0, 2)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(torch.float32, 0x7FC00000), (torch.bfloat16, 0x7FC0), (torch.float16, 0x7E00)],
)
def test_the_quiet_nan_of_every_dtype(dtype: torch.dtype, bits: int) -> None:
    view = torch.int32 if dtype == torch.float32 else torch.int16
    # As many as a vectorised conversion takes, and one more.
    x = torch.full((1, 65), -NAN, dtype=dtype)
    assert log_softmax(x, -1).view(view).tolist() == [[bits] * 65]
