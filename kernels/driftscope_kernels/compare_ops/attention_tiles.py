"""Attention in tiles of keys with a running softmax, each rounding, order and primitive a choice.

In: one sequence cut into heads. Out: [heads, queries, head_dim], rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.attention_heads import Attended, Head, block, softcapped
from driftscope_kernels.compare_ops.exponentials import EXPONENTIALS, ExpName, fused
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.cpu.linear import linear
from driftscope_kernels.options import LANES

#: Queries whose scores stand in memory at once. It changes no bit of a product that is a chain.
QUERY_BLOCK: Final = 512
LOWEST: Final = torch.finfo(torch.float32).min  # vLLM's first maximum: no key has been seen


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a tiled kernel computes."""

    schedule: Callable[[int, int, int, torch.dtype], list[tuple[int, int, int]]]
    #: "chain": one fused multiply-add after another, features and keys ascending; "unfused":
    #: likewise with the product rounded; "torch": whatever order torch's matmul takes.
    product: Literal["chain", "unfused", "torch"] = "torch"
    exp: ExpName = "torch"
    scale_on: Literal["query", "scores"] = "scores"
    probabilities: Literal["float32", "rounded"] = "float32"
    #: The maximum moves, and what is there is rescaled, where it would move by more than this.
    slack: float = 0.0
    total: Literal["tree", "halves"] = "tree"  # how 16 lanes of a sum are added
    last: Literal["nearest", "cut"] = "nearest"  # how a result is rounded to bfloat16
    parts: int = 1  # spans of keys that are computed apart and merged


def fixed(tile: int) -> Callable[[int, int, int, torch.dtype], list[tuple[int, int, int]]]:
    """Blocks of queries (start, end), and the keys of a tile for each."""

    def schedule(
        queries: int, keys: int, width: int, dtype: torch.dtype
    ) -> list[tuple[int, int, int]]:
        starts = range(0, queries, QUERY_BLOCK)
        return [(a, min(a + QUERY_BLOCK, queries), tile) for a in starts]

    return schedule


@dataclass(frozen=True, slots=True)
class State:
    """A running softmax, a row per query of one key head."""

    largest: Tensor  # [rows]
    total: Tensor  # [rows]
    output: Tensor  # [rows, head_dim]


def tiled(how: Tiles) -> Callable[[Attended, AttentionParameters, torch.dtype], Tensor]:
    def run(one: Attended, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
        out = torch.empty_like(one.q, dtype=dtype)
        queries, keys = one.visible.shape
        for start, end, tile in how.schedule(queries, keys, p.head_dim, dtype):
            for head in range(p.kv_heads):
                rows = block(one, p, head, start, end)
                state = _merged([_part(rows, p, how, tile, dtype, *span) for span in _spans(
                    keys if not one.plain else end + keys - queries, how.parts
                )], how)  # fmt: skip
                rounded = _rounded(state.output * (1 / state.total)[:, None], dtype, how.last)
                group = p.heads // p.kv_heads
                out[head * group : (head + 1) * group, start:end] = rounded.reshape(
                    group, end - start, -1
                )
        return out

    return run


def _spans(keys: int, parts: int) -> list[tuple[int, int]]:
    bounds = [keys * part // parts for part in range(parts + 1)]
    return [(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if b > a]


def _part(
    rows: Head, p: AttentionParameters, how: Tiles, tile: int, dtype: torch.dtype, a: int, b: int
) -> State:
    seen = rows.visible[:, a:b].any(0).nonzero()
    count, width = rows.q.shape
    state = State(
        torch.full((count,), LOWEST), torch.zeros(count), torch.zeros(count, width)
    )  # fmt: skip
    if not len(seen):
        return state
    # A window's first tile begins where the first query's keys do, at a multiple of 32 (vLLM).
    first = (a + int(seen[0])) // SPAN_ALIGNMENT * SPAN_ALIGNMENT
    for start in range(max(first, a), b, tile):
        state = _next(state, rows, p, how, dtype, start, min(start + tile, b))
    return state


SPAN_ALIGNMENT: Final = 32  # BlockSizeAlignment of vLLM's csrc/cpu/cpu_attn_vec.hpp


def _next(
    state: State,
    rows: Head,
    p: AttentionParameters,
    how: Tiles,
    dtype: torch.dtype,
    start: int,
    end: int,
) -> State:
    exp = EXPONENTIALS[how.exp]
    score = _scores(rows, p, how, start, end).masked_fill(
        ~rows.visible[:, start:end], -torch.inf
    )  # fmt: skip
    largest = torch.maximum(state.largest, score.amax(1))
    moves = state.largest - largest < -how.slack
    largest = torch.where(moves, largest, state.largest)
    term = exp(score - largest[:, None])
    decay = torch.where(moves, torch.exp(state.largest - largest), 1.0)
    added = _lane_sum(term, how.total)
    total = torch.where(moves, fused(decay, state.total, added), added + state.total)
    weight = term.to(dtype).float() if how.probabilities == "rounded" else term
    output = _product(weight, rows.v[start:end].t(), how.product, state.output * decay[:, None])
    return State(largest, total, output)


def _scores(rows: Head, p: AttentionParameters, how: Tiles, start: int, end: int) -> Tensor:
    scale = torch.tensor(p.scale, dtype=torch.float32)
    if how.scale_on == "query":
        score = _product(rows.q * scale, rows.k[start:end], how.product)
    else:
        score = _product(rows.q, rows.k[start:end], how.product) * scale
    return score if p.softcap is None else softcapped(score, p.softcap, how.exp)


def _product(x: Tensor, weight: Tensor, kind: str, initial: Tensor | None = None) -> Tensor:
    """x [rows, n] times weight [m, n] transposed, added to `initial` [rows, m]; float32."""
    if kind == "chain":
        return linear(x.contiguous(), weight.contiguous(), initial=initial)
    if kind == "torch":
        product = x @ weight.t()
        return product if initial is None else initial + product
    total = torch.zeros(len(x), len(weight)) if initial is None else initial
    for index in range(x.shape[1]):
        total = total + x[:, index, None] * weight[None, :, index]
    return total


def _lane_sum(term: Tensor, order: str) -> Tensor:
    """Σ of each row: sixteen lanes, each ascending, then the lanes by a tree or half by half."""
    padded = torch.nn.functional.pad(term, (0, -term.shape[1] % LANES))
    lanes = torch.zeros(len(term), LANES)
    for start in range(0, padded.shape[1], LANES):
        lanes = lanes + padded[:, start : start + LANES]
    if order == "tree":
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        return lanes[:, 0]
    low, high = lanes[:, : LANES // 2], lanes[:, LANES // 2 :]
    sums = torch.zeros(len(term), 2)
    for index in range(LANES // 2):
        sums = sums + torch.stack([low[:, index], high[:, index]], 1)
    return sums[:, 0] + sums[:, 1]


def _merged(states: list[State], how: Tiles) -> State:
    """Of spans of keys, in their order: the one with the smaller maximum is rescaled."""
    whole = states[0]
    for part in states[1:]:
        largest = torch.maximum(whole.largest, part.largest)
        left, right = torch.exp(whole.largest - largest), torch.exp(part.largest - largest)
        whole = State(
            largest,
            left * whole.total + right * part.total,
            left[:, None] * whole.output + right[:, None] * part.output,
        )
    return whole


def _rounded(result: Tensor, dtype: torch.dtype, last: str) -> Tensor:
    if last == "cut" and dtype == torch.bfloat16:
        # bfloat16 is the upper half of a float32: without the instruction for it, its lower half
        # is shifted out (vLLM's csrc/cpu/cpu_types_x86.hpp).
        kept = result.contiguous().view(torch.int32) & -(1 << 16)
        return kept.view(torch.float32).to(dtype)
    return result.to(dtype)
