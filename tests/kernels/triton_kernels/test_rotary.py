"""Rotary position embedding: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.options import RotaryOptions
from driftscope_kernels.reference.rotary import rotary as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels.rotary import rotary

INTERPRETED = True
OPTIONS = [
    RotaryOptions(),
    RotaryOptions(arithmetic="unfused"),
    RotaryOptions(table="as_given", arithmetic="model_dtype"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    options: RotaryOptions,
    interleaved: bool,
    dtype: torch.dtype,
    same_bits: Callable[..., None],
    numbers: Callable[..., Tensor],
) -> None:
    for width, half in ((20, 6), (16, 8)):
        x = numbers(2, 5, 3, width, dtype=dtype, seed=1, special=True)
        cos, sin = (numbers(5, half, dtype=torch.float32, seed=s) for s in (2, 3))
        keywords: dict[str, Any] = {"interleaved": interleaved, "options": options}
        same_bits(rotary(x, cos, sin, **keywords), reference(x, cos, sin, **keywords))
