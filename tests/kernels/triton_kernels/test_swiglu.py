"""SwiGLU and its gradients: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.options import SwigluOptions
from driftscope_kernels.reference import swiglu as reference
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.triton_kernels import swiglu

INTERPRETED = True


@pytest.mark.parametrize("options", [SwigluOptions("rounded"), SwigluOptions("float32")], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(
    options: SwigluOptions,
    dtype: torch.dtype,
    same_bits: Callable[..., None],
    numbers: Callable[..., Tensor],
) -> None:
    for special in (False, True):
        dy, gate, up = (
            numbers(7, 300, dtype=dtype, seed=s, special=special) * 16 for s in range(3)
        )
        expected = reference.swiglu(gate, up, options=options)
        same_bits(swiglu.swiglu(gate, up, options=options), expected)
        gradients = reference.swiglu_backward(dy, gate, up, options=options)
        same_bits(swiglu.swiglu_backward(dy, gate, up, options=options), gradients)
