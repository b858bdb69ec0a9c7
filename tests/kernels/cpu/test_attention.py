"""Attention: equal to the reference bit for bit, on every instruction set, however it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu.attention import attention, attention_backward
from driftscope_kernels.cpu.backend import PORTABLE, instruction_sets
from driftscope_kernels.options import AttentionOptions
from driftscope_kernels.reference.attention import attention as reference
from driftscope_kernels.reference.attention_backward import (
    attention_backward as reference_backward,
)
from driftscope_kernels.reference.attention_sequences import vllm_pages
from driftscope_kernels.registry import DTYPES

OPTIONS = AttentionOptions()
LENGTHS, QUERIES = (70, 5, 131), (33, 5, 2)
Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]

# The bfloat16 instruction has no part in attention; the portable way is the reference itself.
COMPILED = [isa for isa in instruction_sets() if isa not in (PORTABLE, "avx512_bf16")]
# Query heads, key heads, head size; window; soft cap; probabilities.
SHAPES = ((3, 1, 64), (4, 2, 80), (1, 1, 20), (8, 2, 130))
CASES = [
    *product(SHAPES[:1], (None, 50), (None, 5.0), ("float32", "rounded")),
    *product(SHAPES[1:], (None, 9), (None,), ("float32",)),
]


def batch(lengths: tuple[int, ...], queries: tuple[int, ...]) -> dict[str, Any]:
    starts = torch.tensor([0, *queries]).cumsum(0)
    return {"cu_seqlens_q": starts, "seqlens_k": torch.tensor(lengths), "options": OPTIONS}


def paged(
    k: Tensor, v: Tensor, lengths: tuple[int, ...], size: int, vllm: bool, fill: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and block table; what no token fills holds `fill`."""
    pages, (heads, width) = -(-max(lengths) // size), k.shape[1:]
    order = torch.randperm(len(lengths) * pages, generator=torch.Generator().manual_seed(size))
    table = order.view(len(lengths), pages).int()
    if vllm:
        views = vllm_pages(torch.full((len(order), heads, size, 2 * width), fill, dtype=k.dtype))
    else:
        shape = (len(order), size, heads, width)
        views = (torch.full(shape, fill, dtype=k.dtype), torch.full(shape, fill, dtype=k.dtype))
    start = 0
    for pages_of, length in zip(table.long(), lengths, strict=True):
        at = torch.arange(length)
        for x, view in zip((k, v), views, strict=True):
            view[pages_of[at // size], at % size] = x[start : start + length]
        start += length
    return *views, table


@pytest.fixture(params=COMPILED)
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("shape", "window", "soft_cap", "probabilities"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference(
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    window: int | None,
    soft_cap: float | None,
    probabilities: Any,
    bits: Bits,
) -> None:
    heads, kv_heads, size = shape
    generator = torch.Generator().manual_seed(size)
    shapes = ((sum(QUERIES), heads), (sum(LENGTHS), kv_heads), (sum(LENGTHS), kv_heads))
    q, k, v = (torch.randn(*s, size, generator=generator).to(dtype) for s in shapes)
    dy = torch.randn(q.shape, generator=generator).to(dtype)
    arguments = batch(LENGTHS, QUERIES) | {
        "scale": size**-0.5,
        "window": window,
        "soft_cap": soft_cap,
        "options": AttentionOptions(probabilities),
    }
    expected = reference(q, k, v, **arguments)
    slopes = reference_backward(dy, q, k, v, **arguments)
    for isa in COMPILED:
        assert bits(attention(q, k, v, **arguments, isa=isa)).equal(bits(expected)), isa
        for got, slope in zip(
            attention_backward(dy, q, k, v, **arguments, isa=isa), slopes, strict=True
        ):
            assert bits(got).equal(bits(slope)), isa


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("heads", [3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_several_items_equal_the_reference(
    dtype: torch.dtype, heads: int, window: int | None, bits: Bits
) -> None:
    """More rows than one item, or a part of it, takes; paged as vLLM's cache too."""
    generator, length, size = torch.Generator().manual_seed(heads), 150, 64
    shapes = ((140, heads), (length, 1), (length, 1))
    q, k, v = (torch.randn(*s, size, generator=generator).to(dtype) for s in shapes)
    arguments = batch((length,), (140,)) | {"scale": size**-0.5, "window": window}
    expected = bits(reference(q, k, v, **arguments))
    keys, values, table = paged(k, v, (length,), 64, vllm=True, fill=float("nan"))
    for isa in COMPILED:
        assert bits(attention(q, k, v, **arguments, isa=isa)).equal(expected)
        got = attention(q, keys, values, **arguments, block_table=table, isa=isa)
        assert bits(got).equal(expected)


@pytest.mark.parametrize("kind", ["wide", "special", "tiny"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference_on_hostile_numbers(
    dtype: torch.dtype, kind: str, bits: Bits, wide: Wide
) -> None:
    for seed in range(4):
        q, k, v, dy = (
            wide((n, h, 20), dtype, 10 * seed + i, kind)
            for i, (n, h) in enumerate(((12, 2), (90, 1), (90, 1), (12, 2)))
        )
        if kind == "special":
            k[3], k[80, 0, 0] = -float("inf"), float("inf")
        arguments = batch((80, 10), (7, 5)) | {"scale": 0.2, "window": 70}
        expected = reference(q, k, v, **arguments)
        slopes = reference_backward(dy, q, k, v, **arguments)
        for isa in COMPILED:
            assert bits(attention(q, k, v, **arguments, isa=isa)).equal(bits(expected))
            got = attention_backward(dy, q, k, v, **arguments, isa=isa)
            assert all(bits(a).equal(bits(b)) for a, b in zip(got, slopes, strict=True))


@pytest.mark.parametrize("vllm", [False, True])
@pytest.mark.parametrize("size", [5, 16, 32, 64, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pages_change_no_bit(
    dtype: torch.dtype, size: int, vllm: bool, isa: str, bits: Bits, wide: Wide
) -> None:
    for queries in (QUERIES, (1, 1, 1)):
        q = wide((sum(queries), 6, 32), dtype, 1)
        k, v = (wide((sum(LENGTHS), 2, 32), dtype, seed) for seed in (2, 3))
        arguments = batch(LENGTHS, queries) | {"scale": 0.1, "window": 100}
        expected = attention(q, k, v, **arguments, isa=isa)
        keys, values, table = paged(k, v, LENGTHS, size, vllm, float("nan"))
        got = attention(q, keys, values, block_table=table, **arguments, isa=isa)
        assert bits(got).equal(bits(expected))


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_prefill_and_chunks_have_the_same_bits(
    dtype: torch.dtype, window: int | None, isa: str, bits: Bits, wide: Wide
) -> None:
    length = 200
    q, k, v = (wide((length, h, 64), dtype, h) for h in (6, 2, 2))
    more: dict[str, Any] = {"scale": 0.125, "window": window, "isa": isa}
    whole = attention(q, k, v, **batch((length,), (length,)), **more)
    for chunk in (1, 7, 16, 64):
        for start in range(0, length, chunk):
            if chunk == 1 and start % 23:
                continue
            end = min(start + chunk, length)
            part = attention(
                q[start:end], k[:end], v[:end], **batch((end,), (end - start,)), **more
            )
            assert bits(part).equal(bits(whole[start:end]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_alone_in_a_batch_and_on_two_threads(
    dtype: torch.dtype, isa: str, bits: Bits, wide: Wide
) -> None:
    q = wide((sum(QUERIES), 6, 64), dtype, 1)
    k, v = (wide((sum(LENGTHS), 2, 64), dtype, seed) for seed in (2, 3))
    dy = wide(tuple(q.shape), dtype, 4)
    more: dict[str, Any] = {"scale": 0.125, "isa": isa}
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        arguments = batch(LENGTHS, QUERIES) | more
        gradients = attention_backward(dy, q, k, v, **arguments)
        results.append((attention(q, k, v, **arguments), *gradients))
    assert all(bits(a).equal(bits(b)) for a, b in zip(*results, strict=True))
    start = end = 0
    for length, queries in zip(LENGTHS, QUERIES, strict=True):
        rows, tokens = slice(start, start + queries), slice(end, end + length)
        start, end = start + queries, end + length
        arguments = batch((length,), (queries,)) | more
        alone = (q[rows], k[tokens], v[tokens])
        got = (attention(*alone, **arguments), *attention_backward(dy[rows], *alone, **arguments))
        for one, all_of_them, part in zip(
            got, results[0], (rows, rows, tokens, tokens), strict=True
        ):
            assert bits(one).equal(bits(all_of_them[part]))


@pytest.mark.parametrize("unseen", [float("nan"), float("inf"), 3e4, 1e-7])
def test_neighbours_change_no_bit(unseen: float, isa: str, bits: Bits, wide: Wide) -> None:
    for dtype in DTYPES:
        q, k, v = (wide((200, h, 32), dtype, h) for h in (4, 2, 2))
        more: dict[str, Any] = {"scale": 0.2, "window": 60, "isa": isa}
        arguments = batch((200,), (200,)) | more
        whole = attention(q, k, v, **arguments)
        slope = attention_backward(q, q, k, v, **arguments)[0]
        for x in (k, v):
            x[:40], x[151:] = unseen, unseen
        changed = attention(q, k, v, **arguments)
        changed_slope = attention_backward(q, q, k, v, **arguments)[0]
        assert bits(changed[99:151]).equal(bits(whole[99:151]))
        assert bits(changed_slope[99:151]).equal(bits(slope[99:151]))


def test_strides_change_no_bit(isa: str, bits: Bits, wide: Wide) -> None:
    q, k, v = (wide((90, h, 40), torch.bfloat16, h) for h in (4, 2, 2))
    arguments = batch((90,), (90,)) | {"scale": 0.2, "isa": isa}
    expected = attention(q, k, v, **arguments)
    for order in ((2, 1, 0), (1, 0, 2), (1, 2, 0)):
        back = [order.index(i) for i in range(3)]
        moved = [x.permute(order).contiguous().permute(back) for x in (q, k, v)]
        assert bits(attention(*moved, **arguments)).equal(bits(expected))
    out = torch.empty_like(q)
    assert bits(attention(q, k, v, out=out, **arguments)).equal(bits(out))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seqlens_k": torch.tensor([4])}, "5 queries and 4 keys"),
        ({"seqlens_k": torch.tensor([6])}, "adds up to 6"),
        ({"cu_seqlens_q": torch.tensor([1, 5])}, "goes from 1"),
        ({"block_table": torch.tensor([[2]])}, "the cache has pages 0 to 1"),
        ({"block_table": torch.tensor([[-1]])}, "is -1"),
        ({"block_table": torch.zeros(1, 0, dtype=torch.int32)}, "0 columns"),
        ({"out": torch.zeros(5, 16, 3).transpose(1, 2)}, "not a contiguous tensor"),
    ],
)
def test_refuses_what_would_read_elsewhere(change: dict[str, Any], message: str) -> None:
    pages = "block_table" in change
    keys = torch.zeros(2, 8, 1, 16) if pages else torch.zeros(5, 1, 16)
    arguments = batch((5,), (5,)) | {"scale": 1.0} | change
    with pytest.raises(ValueError, match=message):
        attention(torch.zeros(5, 3, 16), keys, keys, **arguments)


def test_portable_is_the_reference(bits: Bits, wide: Wide) -> None:
    q, k, v = (wide((9, 2, 16), torch.bfloat16, seed) for seed in range(3))
    arguments = batch((9,), (9,)) | {"scale": 0.2}
    portable = attention(q, k, v, **arguments, isa=PORTABLE)
    assert bits(portable).equal(bits(reference(q, k, v, **arguments)))
    slopes = attention_backward(q, q, k, v, **arguments, isa=PORTABLE)
    expected = reference_backward(q, q, k, v, **arguments)
    assert all(bits(a).equal(bits(b)) for a, b in zip(slopes, expected, strict=True))
