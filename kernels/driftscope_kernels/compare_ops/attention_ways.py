"""How attention is computed by torch, by transformers, by vLLM on a CPU and by driftscope.

In: one sequence cut into heads. Out: [heads, queries, head_dim], and variants made of such ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.compare_ops.attention_heads import (
    Attended,
    Way,
    repeated,
    run_way,
)
from driftscope_kernels.compare_ops.attention_tiles import Tiles, fixed
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.compare_ops.variant import Inputs, Outputs, Reason, Variant
from driftscope_kernels.options import AttentionOptions

AttentionVariant = Variant[AttentionParameters]

# Of vLLM 0.32, csrc/cpu/cpu_attn_impl.hpp and cpu_attn_vec.hpp: what its tiles are sized by.
VLLM_QUERIES: Final = 8  # MaxQHeadNumPerIteration
VLLM_MOST_QUERIES: Final = 128 * VLLM_QUERIES  # MaxQTileIterNum of them
VLLM_KEYS: Final = 32  # BlockSizeAlignment
FLOAT32_BYTES: Final = 4
DEFAULT_L2_BYTES: Final = 1 << 20  # where torch does not know the CPU's


def sdpa(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    """As `transformers.integrations.sdpa_attention`: no mask where the kernel's own will do."""
    q, k, v = (x.to(dtype)[None] for x in (one.q, one.k, one.v))
    if not one.plain:
        return sdpa_masked(one, p, dtype)
    grouped = p.heads != p.kv_heads
    return F.scaled_dot_product_attention(
        q, k, v, is_causal=q.shape[2] > 1, scale=p.scale, enable_gqa=grouped
    )[0]


def sdpa_masked(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    """With a mask transformers repeats keys and values (`use_gqa_in_sdpa`)."""
    q, k, v = (x.to(dtype)[None] for x in (one.q, repeated(one.k, p), repeated(one.v, p)))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=one.visible, scale=p.scale)[0]


def sdpa_math(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    q, k, v = (x.to(dtype)[None] for x in (one.q, repeated(one.k, p), repeated(one.v, p)))
    run: Any = torch.ops.aten._scaled_dot_product_attention_math
    # `scaled_dot_product_attention` turns a mask of booleans into one to add; this does not.
    hidden = torch.zeros(one.visible.shape, dtype=dtype).masked_fill(~one.visible, -torch.inf)
    mask = None if one.plain else hidden
    y: Tensor = run(q, k, v, mask, 0.0, one.plain, None, scale=p.scale)[0][0]
    return y


def sdpa_float32(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    return sdpa(one, p, torch.float32).to(dtype)


def sdpa_decoded(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    """Each query in a call of its own, over the keys that are in the cache by then."""
    rows = []
    for query in range(one.q.shape[1]):
        keys = slice(0, query + 1)
        seen = one.visible[query : query + 1, keys]
        alone = Attended(
            one.q[:, query : query + 1], one.k[:, keys], one.v[:, keys], seen, bool(seen.all())
        )
        rows.append(sdpa(alone, p, dtype))
    return torch.cat(rows, dim=1)


@dataclass(frozen=True, slots=True)
class Plain:
    """All scores at once, as `eager_attention_forward`, with its rounding points as choices."""

    scores: Literal["dtype", "float32"] = "dtype"
    scale_on: Literal["scores", "query"] = "scores"
    probabilities: Literal["dtype", "float32"] = "dtype"
    normalise: Literal["before", "after"] = "before"  # before or after P·V


def plain(how: Plain) -> Way:
    def run(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
        held = dtype if how.scores == "dtype" else torch.float32
        q, k, v = (x.to(dtype) for x in (one.q, repeated(one.k, p), repeated(one.v, p)))
        if how.scale_on == "query":
            score = (q * p.scale).to(held) @ k.to(held).transpose(1, 2)
        else:
            score = q.to(held) @ k.to(held).transpose(1, 2) * p.scale
        if p.softcap is not None:
            score = torch.tanh(score / p.softcap) * p.softcap
        score = score.masked_fill(~one.visible, -torch.inf).float()
        if how.normalise == "before":
            weight, total = score.softmax(dim=2), None
        else:
            weight = torch.exp(score - score.amax(2, keepdim=True))
            total = weight.sum(2, keepdim=True)
        kept = dtype if how.probabilities == "dtype" else torch.float32
        if total is None:
            return (weight.to(kept) @ v.to(kept)).to(dtype)
        return ((weight.to(kept).float() @ v.float()) / total).to(dtype)

    return run


def own(options: AttentionOptions) -> Way:
    def run(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
        q, k, v = (x.to(dtype).transpose(0, 1).contiguous() for x in (one.q, one.k, one.v))
        y = ops.attention(
            q, k, v,
            cu_seqlens_q=torch.tensor([0, len(q)]), seqlens_k=torch.tensor([len(k)]),
            scale=p.scale, window=p.window, soft_cap=p.softcap, options=options,
        )  # fmt: skip
        return y.transpose(0, 1)

    return run


def vllm_schedule(
    queries: int, keys: int, width: int, dtype: torch.dtype
) -> list[tuple[int, int, int]]:
    """Blocks of queries and the keys of a tile for each: what half of the L2 cache holds."""
    half = int(torch.cpu.get_capabilities().get("l2_cache_size", 0) or DEFAULT_L2_BYTES) // 2
    score_bytes = VLLM_QUERIES * FLOAT32_BYTES
    cache_bytes = 2 * dtype.itemsize * width  # a key and its value
    query_bytes = 2 * FLOAT32_BYTES * width  # a query and its output
    most = min(half // (query_bytes + cache_bytes + score_bytes), VLLM_MOST_QUERIES)
    step = max(most // VLLM_QUERIES, 1) * VLLM_QUERIES
    blocks = []
    for start in range(0, queries, step):
        end = min(start + step, queries)
        rows = -(-(end - start) // VLLM_QUERIES) * VLLM_QUERIES
        # Queries of one iteration read their keys once: these need not stay in the cache.
        key_bytes = score_bytes if rows <= VLLM_QUERIES else score_bytes + cache_bytes
        tile = max((half - rows * query_bytes) // key_bytes // VLLM_KEYS, 1) * VLLM_KEYS
        blocks.append((start, end, tile))
    return blocks


def vllm_decode_schedule(
    queries: int, keys: int, width: int, dtype: torch.dtype
) -> list[tuple[int, int, int]]:
    """As if each query came alone."""
    tile = vllm_schedule(1, keys, width, dtype)[0][2]
    return [(start, end, tile) for start, end, _ in fixed(tile)(queries, keys, width, dtype)]


# The maximum may lag by 8 before anything is rescaled, as in FlashAttention 4.
VLLM: Final = Tiles(vllm_schedule, "chain", "u20", "query", slack=8.0)
VLLM_DECODE: Final = Tiles(vllm_decode_schedule, "chain", "u20", "query", slack=8.0)
VLLM_AVX512: Final = Tiles(vllm_schedule, "chain", "u20", "query", slack=8.0, last="cut")
VLLM_AVX2: Final = Tiles(
    vllm_schedule, "unfused", "libm", "query", slack=8.0, total="halves", last="cut"
)
# bfloat16 alone, and from the source alone: no such CPU was at hand.
VLLM_AMX: Final = Tiles(vllm_schedule, "chain", "u20", "scores", "rounded", slack=8.0)


def vllm_here() -> Tiles:
    """What vLLM runs on this CPU (`vllm.platforms.cpu.import_kernels`), AMX aside."""
    if not torch.cpu._is_avx512_supported():
        return VLLM_AVX2
    return VLLM if torch.cpu._is_avx512_bf16_supported() else VLLM_AVX512


def variant(name: str, reason: Reason, says: str, code: str, way: Way) -> AttentionVariant:
    def run(inputs: Inputs, p: AttentionParameters, dtype: torch.dtype) -> Outputs:
        return run_way(way, inputs, p, dtype)

    return Variant(name, reason, says, code, run)
