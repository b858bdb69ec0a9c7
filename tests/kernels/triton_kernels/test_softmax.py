"""softmax, log_softmax, logsumexp and their gradients: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.reference import softmax as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels import softmax

INTERPRETED = True
NAMES = ("softmax", "log_softmax", "logsumexp")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    name: str, dtype: torch.dtype, same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    for n, special in ((1, False), (23, False), (32, True)):
        x = numbers(9, n, dtype=dtype, seed=n, special=special)
        dy = numbers(*((9,) if name == "logsumexp" else (9, n)), dtype=dtype, seed=n + 1)
        expected = getattr(reference, name)(x, -1)
        same_bits(getattr(softmax, name)(x, -1), expected)
        gradient = getattr(reference, f"{name}_backward")(dy, x, -1)
        same_bits(getattr(softmax, f"{name}_backward")(dy, x, -1), gradient)


def test_any_dimension_and_stride(
    same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x = numbers(3, 5, 4, dtype=torch.bfloat16, seed=1)[:, 1:, ::2]
    for dim in (0, 1, -1):
        same_bits(softmax.softmax(x, dim), reference.softmax(x, dim))
        same_bits(softmax.logsumexp(x, dim), reference.logsumexp(x, dim))
    wide = softmax.log_softmax(x, 1, out_dtype=torch.float32)
    same_bits(wide, reference.log_softmax(x, 1, out_dtype=torch.float32))


def test_same_bits_alone_and_in_any_batch(
    same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x = numbers(17, 21, dtype=torch.float32, seed=3)
    whole = softmax.log_softmax(x, -1)
    for row in (0, 7, 8, 16):
        same_bits(softmax.log_softmax(x[row : row + 1], -1), whole[row : row + 1])
