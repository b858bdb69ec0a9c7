from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.contract.bounds import attention_bound
from driftscope_kernels.options import KV_TILE, AttentionOptions
from driftscope_kernels.reference.attention import attention
from driftscope_kernels.reference.attention_sequences import AttentionShapeError, vllm_pages

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OPTIONS = AttentionOptions()
INF, NAN = float("inf"), float("nan")
SameBits = Callable[[Tensor, Tensor], None]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def one(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
    """One sequence."""
    lengths: dict[str, Any] = {
        "cu_seqlens_q": torch.tensor([0, len(q)]),
        "seqlens_k": torch.tensor([len(k)]),
    }
    return attention(q, k, v, **lengths, **{"scale": 0.3, "options": OPTIONS, **more})


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.integers(1, 150),
    st.integers(1, 5),
    st.sampled_from(((1, 1), (3, 1), (4, 2))),
    st.sampled_from((2, 16, 20)),
    st.sampled_from((None, 1, 7, 70)),
    st.sampled_from((None, 2.0, 30.0)),
    st.sampled_from(("float32", "rounded")),
    st.integers(0, 2**32),
)
def test_within_its_bound(
    dtype: torch.dtype,
    length: int,
    queries: int,
    heads: tuple[int, int],
    size: int,
    window: int | None,
    soft_cap: float | None,
    probabilities: Any,
    seed: int,
) -> None:
    q = 3 * random(min(queries, length), heads[0], size, dtype=dtype, seed=seed)
    k, v = (random(length, heads[1], size, dtype=dtype, seed=seed + i) for i in (1, 2))
    more: dict[str, Any] = {
        "scale": size**-0.5,
        "window": window,
        "soft_cap": soft_cap,
        "options": AttentionOptions(probabilities),
    }
    exact, bound = attention_bound(q, k, v, **more)
    assert ((one(q, k, v, **more).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_prefill_and_chunks_have_the_same_bits(
    dtype: torch.dtype, window: int | None, same_bits: SameBits
) -> None:
    length = KV_TILE + 20
    q, k, v = (random(length, h, 16, dtype=dtype, seed=h) for h in (4, 2, 2))
    whole = one(q, k, v, window=window)
    for chunk in (1, 7, 16, 64):
        parts = [
            one(q[i : i + chunk], k[: i + chunk], v[: i + chunk], window=window)
            for i in range(0, length, chunk)
        ]
        same_bits(torch.cat(parts), whole)


def test_what_a_query_does_not_see_changes_no_bit(same_bits: SameBits) -> None:
    q, k, v = (random(90, 2, 16, seed=s) for s in range(3))
    expected = one(q[40:41], k[:41], v[:41], window=20)
    for unseen in (NAN, INF, 3e38, 1e-45):
        other_k, other_v = k.clone(), v.clone()
        for x in (other_k, other_v):
            x[41:], x[:21] = unseen, unseen
        same_bits(one(q[40:], other_k, other_v, window=20)[:1], expected)


@pytest.mark.parametrize("size", [5, 16, 64, 128])
def test_pages_and_their_order_change_no_bit(size: int, same_bits: SameBits) -> None:
    lengths, queries, heads = (70, 129, 3), (2, 129, 1), 2
    q = random(sum(queries), 4, 16)
    k, v = (random(sum(lengths), heads, 16, seed=s) for s in (1, 2))
    batch: dict[str, Any] = {
        "cu_seqlens_q": torch.tensor([0, 2, 131, 132], dtype=torch.int32),
        "seqlens_k": torch.tensor(lengths, dtype=torch.int32),
        "scale": 0.25,
        "options": OPTIONS,
    }
    expected = attention(q, k, v, **batch)
    pages = -(-max(lengths) // size)
    order = torch.randperm(3 * pages, generator=torch.Generator().manual_seed(size))
    table = order.view(3, pages).int()
    cache = torch.full((3 * pages, heads, size, 2 * 16), NAN)
    views = vllm_pages(cache)
    plain = [torch.full((3 * pages, size, heads, 16), NAN) for _ in range(2)]
    for i, (start, length) in enumerate(zip((0, 70, 199), lengths, strict=True)):
        at = torch.arange(length)
        for x, one_view, one_plain in zip((k, v), views, plain, strict=True):
            for pool in (one_view, one_plain):
                pool[table[i].long()[at // size], at % size] = x[start : start + length]
    for keys, values in (views, plain):
        same_bits(attention(q, keys, values, block_table=table, **batch), expected)


def test_a_query_that_sees_one_key_takes_its_value(same_bits: SameBits) -> None:
    q, k, v = (random(70, 1, 16, seed=s) for s in range(3))
    same_bits(one(q, k, v, window=1), v)


def test_scores_of_nothing_but_minus_infinity_give_nan_and_no_later_harm() -> None:
    q, k, v = torch.ones(1, 1, 16), torch.ones(KV_TILE + 1, 1, 16), torch.ones(KV_TILE + 1, 1, 16)
    k[:KV_TILE] = -INF
    assert one(q, k[:KV_TILE], v[:KV_TILE]).isnan().all()
    assert (one(q, k, v) == 1).all()
    k[3] = NAN
    assert one(q, k, v).isnan().all()


def test_rounded_probabilities_differ_in_16_bits_only(same_bits: SameBits) -> None:
    rounded = AttentionOptions(probabilities="rounded")
    for dtype in DTYPES:
        q, k, v = (random(40, 2, 32, dtype=dtype, seed=s) for s in range(3))
        same = torch.equal(one(q, k, v), one(q, k, v, options=rounded))
        assert same == (dtype == torch.float32)


def test_result_goes_into_out(same_bits: SameBits) -> None:
    q, k, v = (random(5, 1, 16, seed=s) for s in range(3))
    out = torch.empty_like(q)
    assert one(q, k, v, out=out) is out
    same_bits(out, one(q, k, v))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cu_seqlens_q": torch.tensor([0, 4])}, "goes from 0 to 4"),
        ({"seqlens_k": torch.tensor([4])}, "5 queries and 4 keys"),
        ({"seqlens_k": torch.tensor([6])}, "adds up to 6"),
        ({"seqlens_k": torch.tensor([5.0])}, "integers"),
        ({"window": 0}, "window = 0"),
        ({"k": torch.zeros(5, 1, 8), "v": torch.zeros(5, 1, 8)}, "expected q"),
        ({"k": torch.zeros(5, 2, 16), "v": torch.zeros(5, 2, 16)}, "evenly"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "q": torch.zeros(5, 3, 16),
        "k": torch.zeros(5, 1, 16),
        "v": torch.zeros(5, 1, 16),
        "cu_seqlens_q": torch.tensor([0, 5]),
        "seqlens_k": torch.tensor([5]),
        "scale": 1.0,
        "options": OPTIONS,
    }
    with pytest.raises(AttentionShapeError, match=message):
        attention(**{**arguments, **change})
