"""Gradients of attention over sequences one after another: dq row by row, dk and dv key by key.

In: dy [T, H, D] and what the forward pass was given, without pages. Out: dq, dk, dv. The softmax is
computed again; the rounding of probabilities to the dtype passes the gradient on as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.options import KV_TILE, AttentionOptions
from driftscope_kernels.reference.arithmetic import Float32, fma, lane_dot
from driftscope_kernels.reference.arrays import rounded
from driftscope_kernels.reference.attention import (
    Mask,
    Rows,
    put_rows,
    rows_of,
    running_softmax,
    take_rows,
)
from driftscope_kernels.reference.attention_sequences import sequences
from driftscope_kernels.reference.attention_tanh import tanh
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.linear import chain


@dataclass(frozen=True, slots=True)
class Saved:
    """What the backward pass takes from the forward one, per row."""

    dy: Float32  # [n, D]
    shift: Float32  # [n]
    inverse: Float32  # [n] 1 / Σ exp
    projection: Float32  # [n] Σ_d dy·y, y unrounded


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
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv in the shapes of q, k, v, contiguous; arguments as `attention`."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    round_to = q.dtype if options.probabilities == "rounded" else None
    for s in sequences(k, cu_seqlens_q, seqlens_k, None):
        for head in range(k.shape[1]):
            rows = rows_of(
                q[s.queries], k[s.keys], v[s.keys], head, s.positions, scale, window, soft_cap
            )
            slopes = _slopes(rows, take_rows(dy[s.queries], head, k.shape[1]), round_to)
            put_rows(dq[s.queries], head, k.shape[1], rounded(slopes[0], q.dtype))
            dk[s.keys, head], dv[s.keys, head] = (rounded(x, k.dtype) for x in slopes[1:])
    return dq, dk, dv


@np.errstate(all="ignore")
def _slopes(
    rows: Rows, dy: Float32, round_to: torch.dtype | None
) -> tuple[Float32, Float32, Float32]:
    state = running_softmax(rows, round_to)
    total = state.total
    projection = lane_dot(dy, state.output / total[:, None])
    saved = Saved(dy, state.shift, np.float32(1) / total, projection)
    dq, dk, dv = (np.zeros_like(x) for x in (rows.q, rows.k, rows.v))
    for tile in rows.tiles():
        visible = rows.visible(tile)
        p, slope = _tile_slopes(rows, tile, saved)
        keys = slice(tile, tile + KV_TILE)
        dv[keys] = _over_rows(p, dy, visible)
        dk[keys] = _over_rows(slope, rows.q, visible)
        for j in range(visible.shape[1]):
            added = fma(slope[:, j, None], rows.k[tile + j], dq)
            dq = np.where(visible[:, j, None], added, dq)
    return dq, dk, dv


def _tile_slopes(rows: Rows, tile: int, saved: Saved) -> tuple[Float32, Float32]:
    """Probabilities and gradients of q·k of one tile, [n, keys of the tile]."""
    scaled = chain(rows.q, rows.k[tile : tile + KV_TILE], torch.float32) * rows.scale
    slope_p = chain(saved.dy, rows.v[tile : tile + KV_TILE], torch.float32)
    if rows.soft_cap is None:
        score, bend = scaled, np.ones_like(scaled)
    else:
        turned = tanh(scaled / rows.soft_cap)
        score, bend = rows.soft_cap * turned, fma(-turned, turned, np.float32(1))
    p = exp(score - saved.shift[:, None]) * saved.inverse[:, None]
    slope = p * (slope_p - saved.projection[:, None])
    return p, (slope * bend) * rows.scale


def _over_rows(weight: Float32, rows: Float32, visible: Mask) -> Float32:
    """[keys, D]: Σ over the rows that see the key, in their order, from +0."""
    total = np.zeros((weight.shape[1], rows.shape[1]), np.float32)
    for i in range(len(rows)):
        added = fma(weight[i, :, None], rows[i], total)
        total = np.where(visible[i, :, None], added, total)
    return total
