"""exp, log, tanh, casts, the flushing fma in a kernel: the bits of the reference, interpreted."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.reference.arithmetic import fma_flushing as reference_fma_flushing
from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.attention_tanh import tanh as reference_tanh
from driftscope_kernels.reference.exp import exp as reference_exp
from driftscope_kernels.reference.log import log as reference_log
from driftscope_kernels.triton_kernels import arithmetic

INTERPRETED = True
COUNT = 1 << 16
#: The interpreter takes milliseconds for a number here.
FEW = 1 << 13


@triton.jit
def unary_kernel(x_ptr, out_ptr, FUNCTION: tl.constexpr, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    x = tl.load(x_ptr + place)
    if FUNCTION == "exp":
        tl.store(out_ptr + place, arithmetic.rounded(arithmetic.exp(x), tl.float32))
    elif FUNCTION == "log":
        tl.store(out_ptr + place, arithmetic.rounded(arithmetic.log(x), tl.float32))
    elif FUNCTION == "tanh":
        tl.store(out_ptr + place, arithmetic.rounded(arithmetic.tanh(x), tl.float32))
    elif FUNCTION == "rounded":
        tl.store(out_ptr + place, arithmetic.rounded(x, out_ptr.dtype.element_ty))
    else:
        tl.store(out_ptr + place, arithmetic.widened(x))


@triton.jit
def fma_flushing_kernel(a_ptr, b_ptr, c_ptr, out_ptr, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    a = tl.load(a_ptr + place)
    result = arithmetic.fma_flushing(a, tl.load(b_ptr + place), tl.load(c_ptr + place))
    tl.store(out_ptr + place, arithmetic.rounded(result, tl.float32))


def _run(function: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.empty(len(x), dtype=dtype)
    with np.errstate(all="ignore"):
        unary_kernel[(1,)](x, out, FUNCTION=function, COUNT=len(x))
    return out


@pytest.fixture(scope="module")
def any_bits() -> Tensor:
    """float32 numbers of random bits, NaN and subnormal ones included."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 2**32, COUNT, dtype=np.uint64).astype(np.uint32)
    return torch.from_numpy(drawn.view(np.float32))


def test_exp_and_log(any_bits: Tensor, same_bits: Callable[..., None]) -> None:
    any_bits, usual = any_bits[:FEW], torch.linspace(-110, 95, FEW)
    for x in (any_bits, usual):
        expected = rounded(reference_exp(x.numpy()), torch.float32)
        same_bits(_run("exp", x, torch.float32), expected)
    expected = rounded(reference_log(any_bits.numpy()), torch.float32)
    same_bits(_run("log", any_bits, torch.float32), expected)


def test_tanh(any_bits: Tensor, same_bits: Callable[..., None]) -> None:
    for x in (any_bits, torch.linspace(-12, 12, COUNT)):
        expected = rounded(reference_tanh(x.numpy()), torch.float32)
        same_bits(_run("tanh", x, torch.float32), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_casts(dtype: torch.dtype, any_bits: Tensor, same_bits: Callable[..., None]) -> None:
    same_bits(_run("rounded", any_bits, dtype), rounded(any_bits.numpy(), dtype))
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    narrow = any_bits if dtype == torch.float32 else every.view(dtype)
    narrow = narrow.nan_to_num(0.0)
    same_bits(_run("widened", narrow, torch.float32), torch.from_numpy(widened(narrow)))


def test_flushing_fma(same_bits: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b, c = (torch.randn(COUNT, generator=generator) for _ in range(3))
    a, b = ((v * 2.0**-63).bfloat16().float() for v in (a, b))
    c = c * 2.0**-126
    out = torch.empty(COUNT)
    fma_flushing_kernel[(1,)](a, b, c, out, COUNT=COUNT)
    expected = reference_fma_flushing(a.numpy(), b.numpy(), c.numpy())
    same_bits(out, rounded(expected, torch.float32))
