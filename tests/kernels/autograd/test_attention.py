"""Gradients of attention against float64 autograd of the plain formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.autograd.arguments import ArgumentError
from driftscope_kernels.autograd.attention import attention
from driftscope_kernels.options import AttentionOptions
from driftscope_kernels.registry import using

# Gradients are sums of up to QUERIES · group products; relative to the largest element.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
LENGTHS, QUERIES = (20, 70, 3), (20, 30, 3)
WINDOW, SOFT_CAP = 25, 4.0
STARTS = torch.tensor([0, *QUERIES]).cumsum(0)
BATCH: dict[str, Any] = {"cu_seqlens_q": STARTS, "seqlens_k": torch.tensor(LENGTHS)}


def plain(inputs: list[Tensor], window: int | None, soft_cap: float | None) -> Tensor:
    q, k, v = inputs
    parts, end = [], 0
    for i, length in enumerate(LENGTHS):
        asked, tokens = q[STARTS[i] : STARTS[i + 1]], slice(end, end + length)
        end += length
        keys, values = (x[tokens].repeat_interleave(2, 1).transpose(0, 1) for x in (k, v))
        score = asked.transpose(0, 1) @ keys.transpose(1, 2) * q.shape[2] ** -0.5
        if soft_cap:
            score = soft_cap * torch.tanh(score / soft_cap)
        position = torch.arange(length - len(asked), length)[:, None]
        place = torch.arange(length)
        seen = (place <= position) & (place > position - (window or length))
        p = score.masked_fill(~seen, -torch.inf).softmax(-1)
        parts.append((p @ values).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (WINDOW, SOFT_CAP)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradients(
    dtype: torch.dtype, window: int | None, soft_cap: float | None, implementation: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((sum(QUERIES), 4, 16), (sum(LENGTHS), 2, 16), (sum(LENGTHS), 2, 16))
    inputs = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    with using(implementation):
        y = attention(*inputs, **BATCH, window=window, soft_cap=soft_cap)
        dy = torch.randn(y.shape, generator=generator).to(dtype)
        got = torch.autograd.grad(y, inputs, dy)
    expected = torch.autograd.grad(plain(exact, window, soft_cap), exact, dy.double())
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


def test_rounded_probabilities_are_passed_through() -> None:
    inputs = [torch.randn(n, 2, 16).bfloat16().requires_grad_() for n in (3, 9, 9)]
    batch: dict[str, Any] = {
        "cu_seqlens_q": torch.tensor([0, 3]),
        "seqlens_k": torch.tensor([9]),
        "options": AttentionOptions(probabilities="rounded"),
    }
    slopes = torch.autograd.grad(attention(*inputs, **batch).sum(), inputs)
    assert all(slope.isfinite().all() for slope in slopes)


def test_no_gradients_through_pages() -> None:
    q, pages = torch.zeros(1, 2, 16, requires_grad=True), torch.zeros(3, 4, 1, 16)
    batch: dict[str, Any] = {
        "cu_seqlens_q": torch.tensor([0, 1]),
        "seqlens_k": torch.tensor([2]),
        "block_table": torch.tensor([[1]]),
    }
    with pytest.raises(ArgumentError, match="without block_table"):
        attention(q, pages, pages, **batch)
    with torch.no_grad():
        assert attention(q, pages, pages, **batch).shape == q.shape
