"""Attention as a Triton kernel: a program takes query rows of one key head, keys in tiles.

In: q, k, v and lengths. Out: as `driftscope_kernels.reference.attention`. Keys are never split.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import KV_TILE, AttentionOptions
from driftscope_kernels.reference.attention_sequences import check_batch, check_lengths
from driftscope_kernels.triton_kernels.arithmetic import (
    INFINITY,
    LANES,
    divided,
    exp,
    merge_lanes,
    rounded,
)
from driftscope_kernels.triton_kernels.attention_tiles import (
    COLUMNS,
    add_products,
    add_to_lanes,
    batch_of,
    dots,
    key_arguments,
    key_places,
    score_of,
    table,
)
from driftscope_kernels.triton_kernels.launch import ALIGNMENT, aligned, interpreting, launch
from driftscope_kernels.triton_kernels.matmul import Dot

# Query rows of one program, whatever the batch. 64 fill the widest tensor-core instruction; a
# product in float32 is spelled out element by element, and 16 rows of it fit in registers.
ROWS_16_BIT = 64
ROWS_FLOAT32 = 16
ROWS_IN_ORDER = 32
SMALLEST_DOT = 16  # tl.dot takes no shorter side
# 8 warps share what does not fit in the registers of 4; one stage of loads, so that heads of 128
# float32 numbers stay within 64 KiB of shared memory, the least of the targets.
ATTENTION_LAUNCH = {"num_warps": 8, "num_stages": 1}
PLAN_COLUMNS = tl.constexpr(COLUMNS)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    block_table: Tensor | None = None,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    out: Tensor | None = None,
    options: AttentionOptions,
    dot: Dot = "tensor_cores",
) -> Tensor:
    """As `reference.attention.attention`; `dot` "in_order" gives its bits.

    With "tensor_cores" a value that is not finite makes NaN of what sees it. The lengths are read
    on the host.
    """
    check_batch(q, k, v, cu_seqlens_q, seqlens_k, block_table, window)
    check_lengths(q, k, cu_seqlens_q, seqlens_k, block_table is not None)
    fits = out is not None and out.is_contiguous() and out.data_ptr() % ALIGNMENT == 0
    result = out if out is not None and fits else q.new_empty(q.shape)
    score = score_arguments(q, scale, window, soft_cap)
    run(q, k, v, cu_seqlens_q, seqlens_k, block_table, result, None, score, options, dot)
    if out is None or fits:
        return result
    return out.copy_(result)


def score_arguments(
    q: Tensor, scale: float, window: int | None, soft_cap: float | None
) -> Mapping[str, Any]:
    """What all kernels are told about scores."""
    return {
        **{"scale": float(np.float32(scale)), "soft_cap": float(np.float32(soft_cap or 1))},
        **{"window": window or 0, "WINDOWED": window is not None, "CAPPED": bool(soft_cap)},
        **{"heads": q.shape[1], "width": q.shape[2]},
        "WIDTH": max(SMALLEST_DOT, triton.next_power_of_2(q.shape[2])),
    }


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    block_table: Tensor | None,
    out: Tensor,
    sums: tuple[Tensor, Tensor] | None,
    score: Mapping[str, Any],
    options: AttentionOptions,
    dot: Dot,
    kv_tile: int = KV_TILE,
) -> None:
    """Into `out`; shift and 1 / Σ exp of each row [T, H] into `sums`."""
    round_weight = options.probabilities == "rounded" and q.dtype != torch.float32
    rows = program_rows(dot, round_weight)
    batch = batch_of(q, k, cu_seqlens_q, seqlens_k)
    programs = table(batch.by_rows(rows), q.device)
    saved = (out, out) if sums is None else sums
    arguments = {
        **{"q_ptr": aligned(q), "out_ptr": out, "shift_ptr": saved[0], "inverse_ptr": saved[1]},
        **{"plan_ptr": programs, "group": batch.group},
        **score,
        **key_arguments(k, v, block_table),
        **{"ROUND": round_weight, "SAVE": sums is not None, "IN_ORDER": dot == "in_order"},
        **{"WIDEN": interpreting(), "KV_TILE": kv_tile, "ROWS": rows},
    }
    grid = (len(programs), k.shape[-2])
    launch(attention_kernel, grid, arguments, **ATTENTION_LAUNCH)


def program_rows(dot: Dot, on_tensor_cores: bool) -> int:
    """Query rows of a program; `on_tensor_cores`: no product has a float32 side."""
    if dot == "in_order":
        return ROWS_IN_ORDER
    return ROWS_16_BIT if on_tensor_cores else ROWS_FLOAT32


@triton.jit
def plan_of(plan_ptr, program):
    """First row or key, start in q, queries, keys before them, start in k, number of sequence."""
    at = plan_ptr + program * PLAN_COLUMNS
    return (
        tl.load(at),
        tl.load(at + 1),
        tl.load(at + 2),
        tl.load(at + 3),
        tl.load(at + 4),
        tl.load(at + 5),
    )


@triton.jit
def row_places(row, q_start, heads, group, kv_head):
    """Number of each query row among all rows [T · H], int64."""
    return (q_start + row // group).to(tl.int64) * heads + kv_head * group + row % group


@triton.jit
def first_seen(last, window, WINDOWED: tl.constexpr):
    if WINDOWED:
        return tl.maximum(last - window + 1, 0)
    else:
        return last * 0


@triton.jit
def next_sums(largest, lanes, output, score, visible, ROWS: tl.constexpr, KV_TILE: tl.constexpr):
    """Running maximum and sums moved to the maximum with this tile; the tile's exponentials."""
    counted = tl.where(visible & (score == score), score, -INFINITY)
    new_largest = tl.maximum(largest, tl.max(counted, axis=1, keep_dims=True))
    shift = tl.where(new_largest == -INFINITY, 0.0, new_largest)
    decay = tl.where(new_largest > largest, exp(largest - shift), 1.0)
    term = tl.where(visible, exp(score - shift), 0.0)
    return new_largest, add_to_lanes(lanes * decay, term, ROWS, KV_TILE), output * decay, term


@triton.jit(do_not_specialize=["pages_width"])
def attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    shift_ptr,
    inverse_ptr,
    plan_ptr,
    pages_ptr,
    pages_width,
    page_size,
    scale,
    soft_cap,
    window,
    heads,
    group,
    width,
    k_page,
    k_place,
    k_head,
    k_step,
    v_page,
    v_place,
    v_head,
    v_step,
    PAGED: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    ROUND: tl.constexpr,
    SAVE: tl.constexpr,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    KV_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    kv_head = tl.program_id(1).to(tl.int64)
    first_row, q_start, queries, before, k_start, sequence = plan_of(plan_ptr, tl.program_id(0))
    row = first_row + tl.arange(0, ROWS)
    live = row < queries * group
    places = row_places(row, q_start, heads, group, kv_head)
    last = (before + row // group)[:, None]
    first = first_seen(last, window, WINDOWED)
    begin = first_seen(before + first_row // group, window, WINDOWED)
    end = before + tl.minimum((first_row + ROWS - 1) // group + 1, queries)
    largest = tl.full((ROWS, 1), -INFINITY, tl.float32)
    lanes = tl.zeros((ROWS, LANES), tl.float32)
    output = tl.zeros((ROWS, WIDTH), tl.float32)
    for tile in range(begin // KV_TILE * KV_TILE, end, KV_TILE):
        position = tile + tl.arange(0, KV_TILE)
        inside = (position >= begin) & (position < end)
        at = key_places(
            *(pages_ptr, pages_width, sequence, k_start, position, inside, page_size),
            *(k_page, k_place, PAGED),
        )
        product = dots(
            *(q_ptr, places * width, live, 1, k_ptr + kv_head * k_head, at, inside, k_step),
            *(width, IN_ORDER, WIDEN, ROWS, KV_TILE, WIDTH),
        )
        score, _turned = score_of(product, scale, soft_cap, CAPPED)
        visible = live[:, None] & (position[None, :] >= first) & (position[None, :] <= last)
        largest, lanes, output, term = next_sums(
            largest, lanes, output, score, visible, ROWS, KV_TILE
        )
        at = key_places(
            *(pages_ptr, pages_width, sequence, k_start, position, inside, page_size),
            *(v_page, v_place, PAGED),
        )
        low = tl.maximum(begin - tile, 0)
        high = tl.minimum(end - tile, KV_TILE)
        output = add_products(
            *(output, term, visible, v_ptr + kv_head * v_head, at, inside, v_step, width),
            *(low, high, ROUND, IN_ORDER, WIDEN, KV_TILE, WIDTH),
        )
    total = merge_lanes(lanes, ROWS)
    result = divided(output, tl.broadcast_to(total, (ROWS, WIDTH)))
    if not IN_ORDER:
        # The sign of a zero tells how many zeros were added to it.
        result = tl.where(result == 0.0, 0.0, result)
    d = tl.arange(0, WIDTH)[None, :]
    stored = live[:, None] & (d < width)
    at_out = out_ptr + places[:, None] * width + d
    tl.store(at_out, rounded(result, out_ptr.dtype.element_ty), mask=stored)
    if SAVE:
        shift = tl.where(largest == -INFINITY, 0.0, largest)
        inverse = divided(tl.full((ROWS, 1), 1.0, tl.float32), total)
        tl.store(shift_ptr + places[:, None], shift, mask=live[:, None])
        tl.store(inverse_ptr + places[:, None], inverse, mask=live[:, None])
