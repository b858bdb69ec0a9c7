from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from driftscope_kernels.contract import bounds
from driftscope_kernels.options import TRANSFORMERS, VLLM, RotaryOptions
from driftscope_kernels.reference.rotary import rotary

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ARITHMETICS = ("fused", "unfused", "model_dtype")


def tables(tokens: int, half: int) -> tuple[Tensor, Tensor]:
    frequency = 10000.0 ** (-torch.arange(half) / half)
    angle = torch.arange(tokens)[:, None] * frequency
    return angle.cos(), angle.sin()


def pairs(x: Tensor, half: int, interleaved: bool) -> tuple[Tensor, Tensor]:
    if interleaved:
        return x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
    return x[..., :half], x[..., half : 2 * half]


@pytest.mark.parametrize(
    ("dtype", "interleaved", "arithmetic"), product(DTYPES, (False, True), ARITHMETICS)
)
def test_within_its_bound_and_the_rest_untouched(
    dtype: torch.dtype, interleaved: bool, arithmetic: str
) -> None:
    half = 6
    x = torch.randn(9, 3, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = tables(9, half)
    options = RotaryOptions(arithmetic=arithmetic)  # type: ignore[arg-type]  # one of ARITHMETICS
    y = rotary(x, cos, sin, interleaved=interleaved, options=options)
    c, s = (table.to(dtype).double()[:, None] for table in (cos, sin))
    x1, x2 = pairs(x.double(), half, interleaved)
    for got, a, b, sign in zip(
        pairs(y, half, interleaved), (x1, x2), (x2, x1), (-1, 1), strict=True
    ):
        bound = bounds.rotary(x, (a * c).abs() + (b * s).abs())
        assert ((got.double() - (a * c + sign * b * s)).abs() <= bound).all()
    assert torch.equal(y[..., 2 * half :], x[..., 2 * half :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_transformers_preset_has_the_bits_of_transformers(
    dtype: torch.dtype, same_bits: Callable[..., None]
) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = (
        torch.randn(1, 4, 20, 32, generator=torch.Generator().manual_seed(seed)).to(dtype)
        for seed in (0, 1)
    )
    cos, sin = tables(20, 16)
    full = [torch.cat([table, table], dim=-1)[None].to(dtype) for table in (cos, sin)]
    for x, theirs in zip((q, k), apply_rotary_pos_emb(q, k, *full), strict=True):
        ours = rotary(x[0].transpose(0, 1), cos, sin, options=TRANSFORMERS.rotary)
        same_bits(ours.transpose(0, 1)[None], theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "neox"),
    [
        pytest.param(dtype, neox, marks=[pytest.mark.avx512] if neox else [])
        for dtype, neox in product(DTYPES, (True, False))
    ],
)
def test_the_vllm_preset_has_the_bits_of_vllm(
    dtype: torch.dtype, neox: bool, same_bits: Callable[..., None]
) -> None:
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    tokens, heads, width = 40, 3, 64
    x = torch.randn(tokens, heads * width, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = tables(tokens, width // 2)
    cache = torch.cat([cos, sin], dim=-1).to(dtype)
    theirs, key = x.clone(), x.clone()
    torch.ops._C.rotary_embedding(torch.arange(tokens), theirs, key, width, cache, neox, 0, False)
    options = VLLM.rotary if neox else VLLM.rotary_interleaved
    ours = rotary(x.view(tokens, heads, width), cos, sin, interleaved=not neox, options=options)
    same_bits(ours.view(tokens, -1), theirs)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_token_has_the_same_bits_in_every_batch(
    arithmetic: str, same_bits: Callable[..., None]
) -> None:
    options = RotaryOptions(arithmetic=arithmetic)  # type: ignore[arg-type]  # one of ARITHMETICS
    x = torch.randn(7, 2, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    cos, sin = tables(7, 4)
    whole = rotary(x, cos, sin, options=options)
    for i in range(7):
        part = slice(i, i + 1)
        same_bits(rotary(x[part], cos[part], sin[part], options=options), whole[part])
    same_bits(rotary(x.flip(0), cos.flip(0), sin.flip(0), options=options), whole.flip(0))


def test_a_table_taken_as_given_keeps_its_precision() -> None:
    x = torch.randn(7, 2, 8, generator=torch.Generator().manual_seed(3)).bfloat16()
    cos, sin = tables(7, 4)
    given, rounded = (
        rotary(x, cos, sin, options=RotaryOptions(table=table)) for table in ("as_given", "rounded")
    )
    assert not torch.equal(given, rounded)
