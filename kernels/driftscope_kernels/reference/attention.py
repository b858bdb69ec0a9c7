"""Attention: causal, grouped queries, sliding window, soft cap; keys in tiles from position 0.

In: q [T, H, D] of sequences one after another, k and v [S, KH, D] likewise or in pages. Out:
[T, H, D], rounded once. A query is one program: it depends on its own keys and positions alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from driftscope_kernels.options import KV_TILE, LANES, AttentionOptions
from driftscope_kernels.reference.arithmetic import Float32, fma, merge_lanes
from driftscope_kernels.reference.arrays import rounded, rounded_float32, widened
from driftscope_kernels.reference.attention_sequences import (
    check_batch,
    check_lengths,
    sequences,
    tokens,
)
from driftscope_kernels.reference.attention_tanh import tanh
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.linear import chain

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Queries of one key head, and the keys that they see: row = query · group + head of group."""

    q: Float32  # [n, D]
    k: Float32  # [L, D]
    v: Float32  # [L, D]
    first: npt.NDArray[np.int64]  # [n] first visible position
    last: npt.NDArray[np.int64]  # [n] last visible position
    scale: np.float32
    soft_cap: np.float32 | None

    def tiles(self) -> range:
        """Where the tiles begin that a row sees something of."""
        start = self.first.min() // KV_TILE * KV_TILE if len(self.first) else 0
        return range(int(start), len(self.k), KV_TILE)

    def visible(self, tile: int) -> Mask:
        """[n, keys of the tile]."""
        position = np.arange(tile, min(tile + KV_TILE, len(self.k)))
        return (position >= self.first[:, None]) & (position <= self.last[:, None])


@dataclass(frozen=True, slots=True)
class Softmax:
    """Running softmax of each row, shifted by the maximum where that is finite."""

    largest: Float32  # [n]
    lanes: Float32  # [n, LANES] sums of exponentials
    output: Float32  # [n, D] sums of exponentials times values

    @property
    def shift(self) -> Float32:
        return shift_of(self.largest)

    @property
    def total(self) -> Float32:
        return merge_lanes(self.lanes)


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
) -> Tensor:
    """softmax(mask(soft_cap·tanh(scale·q·kᵀ / soft_cap)))·v.

    q [T, H, D]: cu_seqlens_q [B + 1] says where each sequence begins. Its Q queries are the last of
    its L = seqlens_k[b] tokens: query i is at position L − Q + i and sees the keys up to there, the
    last `window` of them. Head h reads key head h // (H / KH). k and v are [S, KH, D], sequence
    after sequence, or, with block_table [B, pages of a sequence], [pages, page size, KH, D]. A
    contiguous `out` in the shape of q takes the result.
    """
    check_batch(q, k, v, cu_seqlens_q, seqlens_k, block_table, window)
    check_lengths(q, k, cu_seqlens_q, seqlens_k, block_table is not None)
    out = torch.empty(q.shape, dtype=q.dtype) if out is None else out
    for s in sequences(k, cu_seqlens_q, seqlens_k, block_table):
        keys, values = (tokens(x, block_table is not None)[s.keys] for x in (k, v))
        for head in range(keys.shape[1]):
            rows = rows_of(q[s.queries], keys, values, head, s.positions, scale, window, soft_cap)
            state = running_softmax(rows, q.dtype if options.probabilities == "rounded" else None)
            with np.errstate(all="ignore"):
                result = state.output / state.total[:, None]
            put_rows(out[s.queries], head, keys.shape[1], rounded(result, q.dtype))
    return out


def rows_of(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    head: int,
    positions: npt.NDArray[np.int64],
    scale: float,
    window: int | None,
    soft_cap: float | None,
) -> Rows:
    """The rows of one sequence and one key head."""
    last = np.repeat(positions, q.shape[1] // keys.shape[1])
    return Rows(
        take_rows(q, head, keys.shape[1]),
        widened(keys[:, head]),
        widened(values[:, head]),
        np.zeros_like(last) if window is None else np.maximum(last - window + 1, 0),
        last,
        np.float32(scale),
        np.float32(soft_cap) if soft_cap else None,
    )


def take_rows(x: Tensor, head: int, kv_heads: int) -> Float32:
    """Rows [Q · group, D] float32 of one key head from x [Q, H, D]."""
    group = x.shape[1] // kv_heads
    return widened(x[:, head * group : (head + 1) * group]).reshape(-1, x.shape[2])


def put_rows(x: Tensor, head: int, kv_heads: int, rows: Tensor) -> None:
    """The way back of `take_rows`, into x."""
    group = x.shape[1] // kv_heads
    x[:, head * group : (head + 1) * group] = rows.reshape(-1, group, x.shape[2])


@np.errstate(all="ignore")
def scores(rows: Rows, tile: int) -> Float32:
    """[n, keys of the tile]: one float32 accumulator from +0, D ascending; scale; soft cap."""
    product = chain(rows.q, rows.k[tile : tile + KV_TILE], torch.float32)
    scaled = product * rows.scale
    if rows.soft_cap is None:
        return scaled
    return rows.soft_cap * tanh(scaled / rows.soft_cap)


@np.errstate(all="ignore")
def running_softmax(rows: Rows, round_to: torch.dtype | None) -> Softmax:
    """Tile after tile in ascending position; `round_to`: what multiplies the values is rounded."""
    n, d = rows.q.shape
    state = Softmax(
        np.full(n, -np.inf, np.float32),
        np.zeros((n, LANES), np.float32),
        np.zeros((n, d), np.float32),
    )
    for tile in rows.tiles():
        state = _next(state, rows, tile, round_to)
    return state


def _next(state: Softmax, rows: Rows, tile: int, round_to: torch.dtype | None) -> Softmax:
    visible = rows.visible(tile)
    score = np.where(visible, scores(rows, tile), np.float32(-np.inf))
    largest = np.fmax(state.largest, np.fmax.reduce(score, axis=1))
    shift = shift_of(largest)
    decay = np.where(largest > state.largest, exp(state.largest - shift), np.float32(1))
    term = np.where(visible, exp(score - shift[:, None]), np.float32(0))
    lanes, output = state.lanes * decay[:, None], state.output * decay[:, None]
    for chunk in range(0, term.shape[1], LANES):
        part = term[:, chunk : chunk + LANES]
        lanes = lanes + np.pad(part, ((0, 0), (0, LANES - part.shape[1])))
    weight = term if round_to is None else rounded_float32(term, round_to)
    for j in range(term.shape[1]):
        added = fma(weight[:, j, None], rows.v[tile + j], output)
        output = np.where(visible[:, j, None], added, output)
    return Softmax(largest, lanes, output)


def shift_of(largest: Float32) -> Float32:
    """The maximum, or +0 where all scores so far are −∞: their exponentials are +0 then."""
    return np.where(largest == -np.inf, np.float32(0), largest)
