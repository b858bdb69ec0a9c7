"""RMSNorm, forward and backward: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.options import NormOptions
from driftscope_kernels.reference import norm as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels import norm

INTERPRETED = True
EPS = 1e-5
OPTIONS = [NormOptions(), NormOptions("before_cast", "rounded_sum")]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    options: NormOptions,
    dtype: torch.dtype,
    same_bits: Callable[..., None],
    numbers: Callable[..., Tensor],
) -> None:
    for k, special in ((23, False), (32, True)):
        rows = [numbers(9, k, dtype=dtype, seed=s, special=special) for s in range(4)]
        args = (numbers(k, dtype=dtype, seed=5), EPS)
        for name, inputs in (("rms_norm", 1), ("add_rms_norm", 2)):
            expected = getattr(reference, name)(*rows[:inputs], *args, options=options)
            same_bits(getattr(norm, name)(*rows[:inputs], *args, options=options), expected)
        for name, inputs in (("rms_norm_backward", 2), ("add_rms_norm_backward", 4)):
            gradients = getattr(reference, name)(*rows[:inputs], *args, options=options)
            same_bits(getattr(norm, name)(*rows[:inputs], *args, options=options), gradients)


def test_weight_gradient_over_blocks_of_rows_and_a_carry(
    same_bits: Callable[..., None], numbers: Callable[..., Tensor]
) -> None:
    x, dy = (numbers(65, 5, dtype=torch.bfloat16, seed=s) for s in (1, 2))
    weight = numbers(5, dtype=torch.bfloat16, seed=3)
    for carry in (None, numbers(5, dtype=torch.float32, seed=4)):
        keywords: dict[str, Any] = {"options": NormOptions(), "carry": carry}
        same_bits(
            norm.rms_norm_backward(dy, x, weight, EPS, **keywords),
            reference.rms_norm_backward(dy, x, weight, EPS, **keywords),
        )
