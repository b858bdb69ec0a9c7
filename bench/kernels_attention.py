"""The attention kernel against vLLM's CPU attention with its KV split off, in one run.

Time: both ways alternate in one process; a ratio is the median over rounds of theirs to ours. vLLM
reads its cache as it chooses to lay it out on this CPU, for bfloat16 in tiles where there is AMX;
ours reads vLLM's layout without AMX, as in the plugin. "plain": ours on keys and values one after
another, which have to be transposed first.

    python bench/kernels_attention.py [--json] [--threads 1] [--rounds 7] [--dtypes float32]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.cpu.attention import attention
from driftscope_kernels.options import VLLM_ATTENTION
from driftscope_kernels.reference.attention_sequences import vllm_pages
from driftscope_kernels.speed.row import Way, alternate, ratio
from driftscope_kernels.targets.vllm_ops import attention_isa
from driftscope_kernels.vllm_plugin.attention import VECTOR

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEADS = ((9, 3, 64), (32, 8, 128))  # query heads, key heads, head size: SmolLM2 135M, Llama 3 8B
LENGTHS = (64, 256, 1024, 4096)
# Prefill costs the square of the length: the larger model stops here.
LONGEST_PREFILL = {64: 4096, 128: 1024}
PAGE_SIZE = 128  # tokens; vLLM's own choice on CPUs
NO_WINDOW, NO_SOFT_CAP = -1, 0.0  # as vLLM's layers call it
TARGET = 1.0  # times as fast as vLLM


@dataclass(frozen=True, slots=True)
class Row:
    phase: str  # "decode": one query; "prefill": every token a query
    dtype: str
    heads: int
    kv_heads: int
    head_size: int
    length: int
    vllm_isa: str  # what vLLM computes with, as it names it
    ours_s: float
    vllm_s: float
    ratio: float  # vLLM / ours, median over rounds; above 1: ours is faster
    plain_ratio: float  # vLLM / ours on keys one after another
    reached: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    if not arguments.json:
        print(f"{'dtype':9}{'heads':>6}{'D':>5}{'L':>6}  phase    GFLOP/s  x vLLM   plain  vLLM's")
    for name in arguments.dtypes.split(","):
        for row in measure_dtype(name, arguments.rounds):
            rows.append(row)
            if not arguments.json:
                print(line(row), flush=True)
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        print(f"{sum(row.reached for row in rows)} of {len(rows)} are as fast as vLLM")


def measure_dtype(name: str, rounds: int) -> Iterator[Row]:
    for heads, kv_heads, size in HEADS:
        for length in LENGTHS:
            for queries in (1, length):
                if queries == 1 or length <= LONGEST_PREFILL[size]:
                    ways = both_ways(DTYPES[name], heads, kv_heads, size, length, queries)
                    times = alternate(ways, rounds)
                    yield make_row(name, heads, kv_heads, size, length, queries, times)


def both_ways(
    dtype: torch.dtype, heads: int, kv_heads: int, size: int, length: int, queries: int
) -> dict[str, Way]:
    """Calls of vLLM and of ours that compute the same."""
    from vllm import _custom_ops as ops

    generator = torch.Generator().manual_seed(length)
    shapes = ((queries, heads, size), (length, kv_heads, size), (length, kv_heads, size))
    q, k, v = (torch.randn(s, generator=generator).to(dtype) for s in shapes)
    isa = attention_isa(dtype, PAGE_SIZE, size)
    key_cache, value_cache = halves(written(k, v, isa))
    keys, values = vllm_pages(written(k, v, VECTOR))
    table = torch.arange(len(key_cache), dtype=torch.int32)[None]
    starts, lengths = (torch.tensor(x, dtype=torch.int32) for x in ([0, queries], [length]))
    schedule = ops.cpu_attn_get_scheduler_metadata(
        1, heads, kv_heads, size, lengths, dtype, starts, True, NO_WINDOW, isa, False
    )
    scale, theirs, own = size**-0.5, torch.empty_like(q), torch.empty_like(q)
    batch: dict[str, Any] = {
        "cu_seqlens_q": starts,
        "seqlens_k": lengths,
        "scale": scale,
        "options": VLLM_ATTENTION,
        "out": own,
    }

    def vllm() -> Tensor:
        ops.cpu_attention_with_kv_cache(
            q, key_cache, value_cache, theirs, starts, lengths, scale, True, None, NO_WINDOW,
            table, NO_SOFT_CAP, schedule, None,
        )  # fmt: skip
        return theirs

    return {
        "vllm": vllm,
        "ours": lambda: attention(q, keys, values, block_table=table, **batch),
        "plain": lambda: attention(q, k, v, **batch),
    }


def written(k: Tensor, v: Tensor, isa: str) -> Tensor:
    """A cache of vLLM's with these keys and values, [pages, KH, page size, 2·D]."""
    from vllm import _custom_ops as ops

    length, kv_heads, size = k.shape
    cache = torch.zeros(-(-length // PAGE_SIZE), kv_heads, PAGE_SIZE, 2 * size, dtype=k.dtype)
    ops.cpu_attn_reshape_and_cache(k, v, *halves(cache), torch.arange(length), isa)
    return cache


def halves(cache: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values as vLLM's own calls take them."""
    pages, kv_heads, page_size, both = cache.shape
    keys, values = cache.view(pages, kv_heads, 2 * page_size, both // 2).chunk(2, dim=2)
    return keys, values


def make_row(
    name: str,
    heads: int,
    kv_heads: int,
    size: int,
    length: int,
    queries: int,
    times: dict[str, list[float]],
) -> Row:
    against = ratio(times["vllm"], times["ours"])
    return Row(
        phase="decode" if queries == 1 else "prefill",
        dtype=name,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        length=length,
        vllm_isa=attention_isa(DTYPES[name], PAGE_SIZE, size),
        ours_s=median(times["ours"]),
        vllm_s=median(times["vllm"]),
        ratio=against,
        plain_ratio=ratio(times["vllm"], times["plain"]),
        reached=against >= TARGET,
    )


def line(row: Row) -> str:
    pairs = row.length if row.phase == "decode" else row.length * (row.length + 1) // 2
    speed = 4 * row.heads * row.head_size * pairs / row.ours_s / 1e9
    mark = "" if row.reached else "  short"
    return (
        f"{row.dtype:9}{row.heads:>3}/{row.kv_heads:<2}{row.head_size:5}{row.length:6}  "
        f"{row.phase:8}{speed:8.1f}{row.ratio:8.2f}{row.plain_ratio:8.2f}  {row.vllm_isa}{mark}"
    )


if __name__ == "__main__":
    main()
