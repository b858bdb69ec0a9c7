from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_kernels.contract import bounds
from driftscope_kernels.options import TRANSFORMERS, VLLM, NormOptions
from driftscope_kernels.reference.norm import add_rms_norm, rms_norm

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BEFORE_CAST = NormOptions(weight_multiply="before_cast")
EPS = 1e-6


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from((VLLM.norm, BEFORE_CAST)),
    st.integers(0, 4),
    st.integers(1, 70),
    st.integers(0, 2**32),
)
def test_within_its_bound(
    dtype: torch.dtype, options: NormOptions, m: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(m, k, generator=generator) * 3).to(dtype)
    weight = torch.randn(k, generator=generator).to(dtype)
    y = rms_norm(x, weight, EPS, options=options)
    wide = x.double()
    exact = wide * (wide.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight.double()
    assert y.dtype == dtype
    assert ((y.double() - exact).abs() <= bounds.rms_norm(x, weight, EPS, options)).all()


@pytest.mark.parametrize(("dtype", "options"), product(DTYPES, (VLLM.norm, TRANSFORMERS.norm)))
def test_a_row_has_the_same_bits_in_every_batch(
    dtype: torch.dtype, options: NormOptions, rows_independent: Callable[..., None]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(5, 40, generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(40, generator=generator).to(dtype)
    rows_independent(lambda rows: rms_norm(rows, weight, EPS, options=options), x)
    both = torch.cat([x, residual], dim=1)

    def add(rows: torch.Tensor) -> torch.Tensor:
        left, right = rows.chunk(2, dim=1)
        return torch.cat(add_rms_norm(left, right, weight, EPS, options=options), dim=1)

    rows_independent(add, both)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_options_move_bits_where_they_say(
    dtype: torch.dtype, same_bits: Callable[..., None]
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, residual = (torch.randn(8, 64, generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(64, generator=generator).to(dtype)
    of_rounded, total = add_rms_norm(x, residual, weight, EPS, options=TRANSFORMERS.norm)
    same_bits(total, x + residual)
    same_bits(of_rounded, rms_norm(x + residual, weight, EPS, options=TRANSFORMERS.norm))
    of_exact, same_total = add_rms_norm(x, residual, weight, EPS, options=VLLM.norm)
    same_bits(same_total, total)
    assert not torch.equal(of_exact, of_rounded)
    assert not torch.equal(
        rms_norm(x, weight, EPS, options=BEFORE_CAST), rms_norm(x, weight, EPS, options=VLLM.norm)
    )


def test_rounding_points_are_those_of_a_llama_norm() -> None:
    """float32 statistics, cast, times weight in the dtype: torch's ops but for the sum's order."""
    x = torch.tensor([[3.0, -4.0]]).bfloat16()  # squares and their sum are exact in any order
    weight = torch.tensor([1.1, 0.7]).bfloat16()
    wide = x.float()
    unit = (wide * (1 / (wide.square().mean(-1, keepdim=True)).sqrt())).bfloat16()
    assert torch.equal(rms_norm(x, weight, 0.0, options=VLLM.norm), unit * weight)


def test_special_rows() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, float("nan"), 1], [1e30, 1, 1], [float("inf"), 1, 1]])
    y = rms_norm(x, torch.ones(3), EPS, options=VLLM.norm)
    assert y[0].tolist() == [0, 0, 0] and y[1].isnan().all()
    assert y[2].tolist() == [0, 0, 0]
    assert y[3].isnan().tolist() == [True, False, False]
    assert rms_norm(x[:1], torch.ones(3), 0.0, options=VLLM.norm).isnan().all()
