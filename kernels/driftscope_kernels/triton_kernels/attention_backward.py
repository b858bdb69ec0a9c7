"""Gradients of attention as Triton kernels: dq by query rows, dk and dv by keys.

In: dy and what the forward pass was given, without pages. Out: as
`driftscope_kernels.reference.attention_backward`. No program adds to what another one wrote.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import KV_TILE, AttentionOptions
from driftscope_kernels.reference.attention_sequences import check_batch, check_lengths
from driftscope_kernels.triton_kernels.arithmetic import LANES, exp, load, merge_lanes, rounded
from driftscope_kernels.triton_kernels.attention import (
    ATTENTION_LAUNCH,
    first_seen,
    plan_of,
    program_rows,
    row_places,
    run,
    score_arguments,
)
from driftscope_kernels.triton_kernels.attention_tiles import (
    add_products,
    batch_of,
    dots,
    score_of,
    table,
)
from driftscope_kernels.triton_kernels.launch import aligned, interpreting, launch
from driftscope_kernels.triton_kernels.matmul import Dot


def attention_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    options: AttentionOptions,
    dot: Dot = "tensor_cores",
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.attention_backward.attention_backward`; `dot` as in `attention`."""
    check_batch(q, k, v, cu_seqlens_q, seqlens_k, None, window)
    check_lengths(q, k, cu_seqlens_q, seqlens_k, paged=False)
    dy, q, k, v = (aligned(x) for x in (dy, q, k, v))
    score = score_arguments(q, scale, window, soft_cap)
    shift, inverse, projection = (q.new_empty(q.shape[:2], dtype=torch.float32) for _ in range(3))
    # The result of the forward pass, not rounded.
    y = q.new_empty(q.shape, dtype=torch.float32)
    lengths = (cu_seqlens_q, seqlens_k)
    run(q, k, v, *lengths, None, y, (shift, inverse), score, options, dot)
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    rows = program_rows(dot, False)
    batch = batch_of(q, k, *lengths)
    arguments: Mapping[str, Any] = {
        **{"dy_ptr": dy, "q_ptr": q, "k_ptr": k, "v_ptr": v},
        **{"shift_ptr": shift, "inverse_ptr": inverse, "projection_ptr": projection},
        **{"kv_heads": k.shape[1], "group": batch.group, **score},
        **{"IN_ORDER": dot == "in_order", "WIDEN": interpreting()},
        **{"KV_TILE": KV_TILE, "ROWS": rows},
    }
    by_rows = table(batch.by_rows(rows), q.device)
    own = {"y_ptr": y, "dq_ptr": dq, "plan_ptr": by_rows}
    grid = (len(by_rows), k.shape[1])
    launch(rows_kernel, grid, {**arguments, **own}, **ATTENTION_LAUNCH)
    by_keys = table(batch.by_keys(KV_TILE), q.device)
    own = {"dk_ptr": dk, "dv_ptr": dv, "plan_ptr": by_keys}
    grid = (len(by_keys), k.shape[1])
    launch(keys_kernel, grid, {**arguments, **own}, **ATTENTION_LAUNCH)
    return dq, dk, dv


@triton.jit
def slopes_of(product, slope_p, shift, inverse, projection, scale, soft_cap, CAPPED: tl.constexpr):
    """Probabilities of a tile, and gradients of its products of queries and keys."""
    score, turned = score_of(product, scale, soft_cap, CAPPED)
    p = exp(score - shift) * inverse
    slope = p * (slope_p - projection)
    if CAPPED:
        slope = slope * tl.fma(-turned, turned, tl.zeros_like(turned) + 1.0)
    return p, slope * scale


@triton.jit
def project(dy_ptr, y_ptr, base, live, width, ROWS: tl.constexpr):
    """Σ dy·y of each row [ROWS, 1], by lanes."""
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    for start in range(0, width, LANES):
        inside = live & (start + lane < width)
        dy = load(dy_ptr + base + start + lane, inside)
        total = tl.fma(dy, load(y_ptr + base + start + lane, inside), total)
    return merge_lanes(total, ROWS)


@triton.jit
def rows_kernel(
    dy_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    y_ptr,
    dq_ptr,
    shift_ptr,
    inverse_ptr,
    projection_ptr,
    plan_ptr,
    scale,
    soft_cap,
    window,
    heads,
    kv_heads,
    group,
    width,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    KV_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    kv_head = tl.program_id(1).to(tl.int64)
    first_row, q_start, queries, before, k_start, _sequence = plan_of(plan_ptr, tl.program_id(0))
    row = first_row + tl.arange(0, ROWS)
    live = row < queries * group
    places = row_places(row, q_start, heads, group, kv_head)
    at_rows = places * width
    last = (before + row // group)[:, None]
    first = first_seen(last, window, WINDOWED)
    begin = first_seen(before + first_row // group, window, WINDOWED)
    end = before + tl.minimum((first_row + ROWS - 1) // group + 1, queries)
    shift = load(shift_ptr + places, live)[:, None]
    inverse = load(inverse_ptr + places, live)[:, None]
    projection = project(dy_ptr, y_ptr, at_rows[:, None], live[:, None], width, ROWS)
    tl.store(projection_ptr + places[:, None], projection, mask=live[:, None])
    dq = tl.zeros((ROWS, WIDTH), tl.float32)
    for tile in range(begin // KV_TILE * KV_TILE, end, KV_TILE):
        position = tile + tl.arange(0, KV_TILE)
        inside = (position >= begin) & (position < end)
        at = ((k_start + position).to(tl.int64) * kv_heads + kv_head) * width
        product = dots(
            *(q_ptr, at_rows, live, 1, k_ptr, at, inside, 1),
            *(width, IN_ORDER, WIDEN, ROWS, KV_TILE, WIDTH),
        )
        slope_p = dots(
            *(dy_ptr, at_rows, live, 1, v_ptr, at, inside, 1),
            *(width, IN_ORDER, WIDEN, ROWS, KV_TILE, WIDTH),
        )
        _p, slope = slopes_of(product, slope_p, shift, inverse, projection, scale, soft_cap, CAPPED)
        visible = live[:, None] & (position[None, :] >= first) & (position[None, :] <= last)
        low = tl.maximum(begin - tile, 0)
        high = tl.minimum(end - tile, KV_TILE)
        dq = add_products(
            *(dq, slope, visible, k_ptr, at, inside, 1, width, low, high),
            *(False, IN_ORDER, WIDEN, KV_TILE, WIDTH),
        )
    if not IN_ORDER:
        dq = tl.where(dq == 0.0, 0.0, dq)  # as in the forward pass
    d = tl.arange(0, WIDTH)[None, :]
    stored = live[:, None] & (d < width)
    tl.store(dq_ptr + at_rows[:, None] + d, rounded(dq, dq_ptr.dtype.element_ty), mask=stored)


@triton.jit
def keys_kernel(
    dy_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    dk_ptr,
    dv_ptr,
    shift_ptr,
    inverse_ptr,
    projection_ptr,
    plan_ptr,
    scale,
    soft_cap,
    window,
    heads,
    kv_heads,
    group,
    width,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    KV_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    kv_head = tl.program_id(1).to(tl.int64)
    tile, q_start, queries, before, k_start, _sequence = plan_of(plan_ptr, tl.program_id(0))
    position = tile + tl.arange(0, KV_TILE)
    inside = position < before + queries
    at = ((k_start + position).to(tl.int64) * kv_heads + kv_head) * width
    dk = tl.zeros((KV_TILE, WIDTH), tl.float32)
    dv = tl.zeros((KV_TILE, WIDTH), tl.float32)
    # Blocks of rows are counted from the first row of the sequence, whatever the tile sees of it.
    seen_from = tl.maximum(tile - before, 0) * group // ROWS * ROWS
    seen_to = queries * group
    if WINDOWED:
        seen_to = tl.minimum(seen_to, (tile + KV_TILE - 1 + window - before) * group)
    for first_row in range(seen_from, seen_to, ROWS):
        row = first_row + tl.arange(0, ROWS)
        live = row < queries * group
        places = row_places(row, q_start, heads, group, kv_head)
        at_rows = places * width
        last = (before + row // group)[:, None]
        first = first_seen(last, window, WINDOWED)
        shift = load(shift_ptr + places, live)[:, None]
        inverse = load(inverse_ptr + places, live)[:, None]
        projection = load(projection_ptr + places, live)[:, None]
        product = dots(
            *(q_ptr, at_rows, live, 1, k_ptr, at, inside, 1),
            *(width, IN_ORDER, WIDEN, ROWS, KV_TILE, WIDTH),
        )
        slope_p = dots(
            *(dy_ptr, at_rows, live, 1, v_ptr, at, inside, 1),
            *(width, IN_ORDER, WIDEN, ROWS, KV_TILE, WIDTH),
        )
        p, slope = slopes_of(product, slope_p, shift, inverse, projection, scale, soft_cap, CAPPED)
        visible = live[:, None] & (position[None, :] >= first) & (position[None, :] <= last)
        seen = tl.trans(visible & inside[None, :])
        high = tl.minimum(seen_to - first_row, ROWS)
        dv = add_products(
            *(dv, tl.trans(p), seen, dy_ptr, at_rows, live, 1, width, 0, high),
            *(False, IN_ORDER, WIDEN, ROWS, WIDTH),
        )
        dk = add_products(
            *(dk, tl.trans(slope), seen, q_ptr, at_rows, live, 1, width, 0, high),
            *(False, IN_ORDER, WIDEN, ROWS, WIDTH),
        )
    d = tl.arange(0, WIDTH)[None, :]
    stored = inside[:, None] & (d < width)
    dtype: tl.constexpr = dk_ptr.dtype.element_ty
    tl.store(dk_ptr + at[:, None] + d, rounded(dk, dtype), mask=stored)
    tl.store(dv_ptr + at[:, None] + d, rounded(dv, dtype), mask=stored)
