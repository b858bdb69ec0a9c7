"""Attention: the bits of the reference, interpreted; the same alone, in chunks, pages, a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.check.static import static_process
from driftscope_kernels.options import TRANSFORMERS_ATTENTION, VLLM_ATTENTION, AttentionOptions
from driftscope_kernels.reference import attention as reference
from driftscope_kernels.reference.attention_sequences import AttentionShapeError, vllm_pages
from driftscope_kernels.triton_kernels import attention

INTERPRETED = True
WIDTH = 5  # of a head: neither even nor a power of two
SameBits = Callable[..., None]
Numbers = Callable[..., Tensor]
# dtype, options, window, soft cap
CASES = [
    (torch.float32, VLLM_ATTENTION, None, None),
    (torch.float32, TRANSFORMERS_ATTENTION, 7, None),
    (torch.bfloat16, VLLM_ATTENTION, 40, 2.0),
    (torch.bfloat16, TRANSFORMERS_ATTENTION, None, None),
    (torch.float16, VLLM_ATTENTION, 7, None),
    (torch.float16, TRANSFORMERS_ATTENTION, 40, 2.0),
]
DOTS = ("in_order", "tensor_cores")
# Of the largest element, where the order within a product differs: rounding once more or less.
TOLERANCE = {torch.float32: 2.0**-20, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def lengths(queries: tuple[int, ...], keys: tuple[int, ...]) -> dict[str, Any]:
    starts = torch.tensor((0, *queries)).cumsum(0)
    return {"cu_seqlens_q": starts.int(), "seqlens_k": torch.tensor(keys).int(), "scale": 0.4}


def tensors(
    numbers: Numbers, queries: int, keys: int, dtype: torch.dtype, heads: int = 2, group: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    q = numbers(queries, heads, WIDTH, dtype=dtype, seed=1)
    k, v = (numbers(keys, heads // group, WIDTH, dtype=dtype, seed=s) for s in (2, 3))
    return q, k, v


@pytest.mark.parametrize(("dtype", "options", "window", "soft_cap"), CASES, ids=str)
def test_equals_the_reference(
    dtype: torch.dtype,
    options: AttentionOptions,
    window: int | None,
    soft_cap: float | None,
    same_bits: SameBits,
    numbers: Numbers,
) -> None:
    """A chunk over two tiles, a decoded token, a prefill, a sequence without queries."""
    q, k, v = tensors(numbers, 3 + 1 + 9, 70 + 66 + 9 + 2, dtype)
    more = {**lengths((3, 1, 9, 0), (70, 66, 9, 2)), "window": window, "soft_cap": soft_cap}
    more["options"] = options
    expected = reference.attention(q, k, v, **more)
    same_bits(attention.attention(q, k, v, dot="in_order", **more), expected)
    near = attention.attention(q, k, v, **more).double()
    largest = expected.double().abs().max()
    assert ((near - expected.double()).abs() <= TOLERANCE[dtype] * largest).all()


@pytest.mark.parametrize(("heads", "group"), [(2, 1), (6, 3), (34, 34)], ids=str)
def test_head_groups(heads: int, group: int, same_bits: SameBits, numbers: Numbers) -> None:
    """34 query heads of one key head: more than the rows of a program."""
    q, k, v = tensors(numbers, 2, 4, torch.float32, heads, group)
    more = {**lengths((2,), (4,)), "options": VLLM_ATTENTION}
    found = attention.attention(q, k, v, dot="in_order", **more)
    same_bits(found, reference.attention(q, k, v, **more))


@pytest.mark.parametrize("dot", DOTS)
@pytest.mark.parametrize("window", [None, 50])
def test_decode_prefill_and_chunks_have_the_same_bits(
    dot: Any, window: int | None, same_bits: SameBits, numbers: Numbers
) -> None:
    length = 67
    q, k, v = tensors(numbers, length, length, torch.bfloat16)
    more: dict[str, Any] = {"options": TRANSFORMERS_ATTENTION, "window": window, "dot": dot}
    whole = attention.attention(q, k, v, **lengths((length,), (length,)), **more)
    for start, stop in ((0, 1), (66, 67), (58, 66)):
        part = lengths((stop - start,), (stop,))
        found = attention.attention(q[start:stop], k[:stop], v[:stop], **part, **more)
        same_bits(found, whole[start:stop])


@pytest.mark.parametrize("dot", DOTS)
def test_same_bits_alone_and_in_a_batch(dot: Any, same_bits: SameBits, numbers: Numbers) -> None:
    queries, keys = (2, 1), (66, 9)
    q, k, v = tensors(numbers, sum(queries), sum(keys), torch.float32)
    whole = attention.attention(q, k, v, **lengths(queries, keys), options=VLLM_ATTENTION, dot=dot)
    start, first = 0, 0
    for asked, length in zip(queries, keys, strict=True):
        rows, held = slice(start, start + asked), slice(first, first + length)
        alone = attention.attention(
            q[rows],
            k[held],
            v[held],
            **lengths((asked,), (length,)),
            options=VLLM_ATTENTION,
            dot=dot,
        )
        same_bits(alone, whole[rows])
        start, first = rows.stop, held.stop


@pytest.mark.parametrize("dot", DOTS)
@pytest.mark.parametrize("size", [8, 48])
def test_pages_and_their_order_change_no_bit(
    size: int, dot: Any, same_bits: SameBits, numbers: Numbers
) -> None:
    queries, keys = (2, 1), (66, 9)
    q, k, v = tensors(numbers, sum(queries), sum(keys), torch.float32, 4, 2)
    more = {**lengths(queries, keys), "options": VLLM_ATTENTION, "dot": dot}
    expected = attention.attention(q, k, v, **more)
    per_sequence = -(-max(keys) // size)
    order = torch.randperm(2 * per_sequence, generator=torch.Generator().manual_seed(size))
    table = order.view(2, per_sequence)
    # What lies in pages beyond a sequence is nobody's: NaN would show that it was used.
    views = vllm_pages(torch.full((len(order), 2, size, 2 * WIDTH), float("nan")))
    plain = tuple(torch.full((len(order), size, 2, WIDTH), float("nan")) for _ in range(2))
    for i, (start, length) in enumerate(zip((0, 66), keys, strict=True)):
        at = torch.arange(length)
        for pools in (views, plain):
            for x, pool in zip((k, v), pools, strict=True):
                pool[table[i][at // size], at % size] = x[start : start + length]
    for pools in (views, plain):
        same_bits(attention.attention(q, *pools, block_table=table, **more), expected)


@pytest.mark.parametrize("dot", DOTS)
@pytest.mark.parametrize("unseen", [float("nan"), float("inf"), -3e38])
def test_what_a_query_does_not_see_changes_no_bit(
    unseen: float, dot: Any, same_bits: SameBits, numbers: Numbers
) -> None:
    q, k, v = tensors(numbers, 3, 12, torch.float32)
    more: dict[str, Any] = {"options": VLLM_ATTENTION, "window": 4, "dot": dot}
    expected = attention.attention(q[:1], k[:10], v[:10], **lengths((1,), (10,)), **more)
    for x in (k, v):
        x[:6], x[10:] = unseen, unseen
    found = attention.attention(q, k, v, **lengths((3,), (12,)), **more)
    same_bits(found[:1], expected)


def test_special_values_that_are_seen(same_bits: SameBits, numbers: Numbers) -> None:
    q, k, v = tensors(numbers, 4, 6, torch.float32, 4, 2)
    q[1], k[2, 0], v[3, 1, 0] = float("inf"), float("nan"), -float("inf")
    more = {**lengths((4,), (6,)), "options": VLLM_ATTENTION}
    expected = reference.attention(q, k, v, **more)
    same_bits(attention.attention(q, k, v, dot="in_order", **more), expected)
    fast = attention.attention(q, k, v, **more)
    assert fast.isnan().equal(~expected.isfinite())


def test_into_a_given_tensor(same_bits: SameBits, numbers: Numbers) -> None:
    q, k, v = tensors(numbers, 2, 3, torch.float16)
    more = {**lengths((2,), (3,)), "options": VLLM_ATTENTION}
    expected = attention.attention(q, k, v, **more)
    for offset in (0, 1):  # aligned and not
        out = torch.zeros(q.numel() + offset, dtype=q.dtype)[offset:].view(q.shape)
        assert attention.attention(q, k, v, out=out, **more) is out
        same_bits(out, expected)


def test_lengths_that_do_not_fit_are_named(numbers: Numbers) -> None:
    q, k, v = tensors(numbers, 2, 3, torch.float32)
    with pytest.raises(AttentionShapeError, match="seqlens_k adds up to 4, k has 3"):
        attention.attention(q, k, v, **lengths((2,), (4,)), options=VLLM_ATTENTION)


def test_tiles_by_batch_are_found_by_taking_it_apart(numbers: Numbers) -> None:
    queries, keys = (16, 1), (50, 50)
    q, k, v = tensors(numbers, sum(queries), sum(keys), torch.float32)
    whole = static_process.attention_with_tiles_by_batch(q, k, v, **lengths(queries, keys))
    alone = static_process.attention_with_tiles_by_batch(
        q[:16], k[:50], v[:50], **lengths((16,), (50,))
    )
    assert not alone.equal(whole[:16])
