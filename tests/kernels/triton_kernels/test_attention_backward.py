"""Gradients of attention: the bits of the reference, interpreted; dq row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.options import TRANSFORMERS_ATTENTION, VLLM_ATTENTION, AttentionOptions
from driftscope_kernels.reference.attention_backward import attention_backward as reference
from driftscope_kernels.triton_kernels.attention_backward import attention_backward

INTERPRETED = True
WIDTH = 5
SameBits = Callable[..., None]
Numbers = Callable[..., Tensor]
# Queries and keys of each sequence: rows over a block of a program, keys over a tile.
MANY_ROWS = ((17, 2, 0), (17, 3, 2))
MANY_KEYS = ((3, 1), (66, 4))
CASES = [
    (torch.float32, VLLM_ATTENTION, None, None, MANY_ROWS),
    (torch.float32, VLLM_ATTENTION, 7, 2.0, MANY_KEYS),
    (torch.bfloat16, TRANSFORMERS_ATTENTION, 40, None, MANY_KEYS),
    (torch.float16, VLLM_ATTENTION, 7, 2.0, MANY_ROWS),
]
TOLERANCE = {torch.float32: 2.0**-18, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def lengths(queries: tuple[int, ...], keys: tuple[int, ...]) -> dict[str, Any]:
    starts = torch.tensor((0, *queries)).cumsum(0)
    return {"cu_seqlens_q": starts, "seqlens_k": torch.tensor(keys), "scale": 0.4}


def tensors(
    numbers: Numbers, queries: int, keys: int, dtype: torch.dtype, kv_heads: int = 1
) -> list[Tensor]:
    """dy, q, k, v: two query heads of each key head."""
    rows = [numbers(queries, 2 * kv_heads, WIDTH, dtype=dtype, seed=s) for s in (1, 2)]
    return rows + [numbers(keys, kv_heads, WIDTH, dtype=dtype, seed=s) for s in (3, 4)]


@pytest.mark.parametrize(("dtype", "options", "window", "soft_cap", "sizes"), CASES, ids=str)
def test_equals_the_reference(
    dtype: torch.dtype,
    options: AttentionOptions,
    window: int | None,
    soft_cap: float | None,
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    same_bits: SameBits,
    numbers: Numbers,
) -> None:
    inputs: Any = tensors(numbers, sum(sizes[0]), sum(sizes[1]), dtype)
    more: dict[str, Any] = {**lengths(*sizes), "window": window}
    more |= {"soft_cap": soft_cap, "options": options}
    expected = reference(*inputs, **more)
    same_bits(attention_backward(*inputs, dot="in_order", **more), expected)
    for near, exact in zip(attention_backward(*inputs, **more), expected, strict=True):
        largest = exact.double().abs().max()
        assert ((near.double() - exact.double()).abs() <= TOLERANCE[dtype] * largest).all()


@pytest.mark.parametrize("dot", ["in_order", "tensor_cores"])
def test_same_bits_alone_and_in_a_batch(dot: Any, same_bits: SameBits, numbers: Numbers) -> None:
    dy, q, k, v = tensors(numbers, 4 + 3, 4 + 6, torch.bfloat16, kv_heads=2)
    more: dict[str, Any] = {"options": VLLM_ATTENTION, "dot": dot}
    whole = attention_backward(dy, q, k, v, **lengths((4, 3), (4, 6)), **more)
    alone = attention_backward(dy[4:], q[4:], k[4:], v[4:], **lengths((3,), (6,)), **more)
    same_bits(alone, tuple(x[4:] for x in whole))
    # dq is a function of its row; dk and dv are sums over the queries of a sequence.
    last = attention_backward(dy[6:], q[6:], k[4:], v[4:], **lengths((1,), (6,)), **more)
    same_bits(last[0], whole[0][6:])


@pytest.mark.parametrize("dot", ["in_order", "tensor_cores"])
def test_what_a_row_does_not_see_changes_no_bit(
    dot: Any, same_bits: SameBits, numbers: Numbers
) -> None:
    dy, q, k, v = tensors(numbers, 3, 3, torch.float32)
    more: dict[str, Any] = {"options": VLLM_ATTENTION, "window": 2, "dot": dot}
    expected = attention_backward(dy, q, k, v, **lengths((3,), (3,)), **more)
    for x in (dy, q):
        x[0] = float("nan")  # key 2 is not seen by row 0
    k[0], v[0] = float("inf"), float("nan")  # row 2 does not see key 0
    found = attention_backward(dy, q, k, v, **lengths((3,), (3,)), **more)
    same_bits(found[0][2], expected[0][2])
    same_bits(found[1][2], expected[1][2])
    same_bits(found[2][2], expected[2][2])
