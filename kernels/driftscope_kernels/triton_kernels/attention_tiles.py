# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators
"""What both passes of attention share: tables of programs, made by the host, and blocks of keys.

Device code: as `driftscope_kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.triton_kernels.arithmetic import (
    INFINITY,
    LANES,
    divided,
    dot_added,
    load,
    rounded,
    tanh,
    through,
    widened,
)
from driftscope_kernels.triton_kernels.launch import ALIGNMENT, aligned

# A program's row of the table: the first of its query rows or keys; where the sequence begins in
# q and how many queries it has; keys before its first query; where it begins in k; its number.
COLUMNS = 6


@dataclass(frozen=True, slots=True)
class Batch:
    """Lengths on the host. A row of a sequence is query · group + head of the group."""

    starts: tuple[int, ...]  # [B + 1] in q
    lengths: tuple[int, ...]  # [B] of the keys
    group: int  # query heads of a key head

    def by_rows(self, count: int) -> list[list[int]]:
        """A program per `count` rows of a sequence."""
        found = []
        for sequence, (asked, place) in enumerate(self._places()):
            for first in range(0, asked * self.group, count):
                found.append([first, *place, sequence])
        return found

    def by_keys(self, count: int) -> list[list[int]]:
        """A program per `count` keys of a sequence, from position 0."""
        found = []
        for sequence, (_, place) in enumerate(self._places()):
            for first in range(0, self.lengths[sequence], count):
                found.append([first, *place, sequence])
        return found

    def _places(self) -> Iterator[tuple[int, list[int]]]:
        end = 0
        for i, length in enumerate(self.lengths):
            asked = self.starts[i + 1] - self.starts[i]
            yield asked, [self.starts[i], asked, length - asked, end]
            end += length


def batch_of(q: Tensor, k: Tensor, cu_seqlens_q: Tensor, seqlens_k: Tensor) -> Batch:
    return Batch(tuple(cu_seqlens_q.tolist()), tuple(seqlens_k.tolist()), q.shape[1] // k.shape[-2])


def table(programs: list[list[int]], device: torch.device) -> Tensor:
    """[programs, COLUMNS] int32 on the device."""
    return torch.tensor(programs, dtype=torch.int32).reshape(-1, COLUMNS).to(device)


def key_arguments(k: Tensor, v: Tensor, block_table: Tensor | None) -> Mapping[str, Any]:
    """Keys and values where they lie: pages are not copied, unless they are not aligned."""
    if block_table is None:
        k, v = aligned(k), aligned(v)
        pages, width = k.new_zeros(1, dtype=torch.int32), 0
        k_steps, v_steps = ((0, *x.stride()) for x in (k, v))
    else:
        k, v = (_in_place(x) for x in (k, v))
        pages, width = aligned(block_table.to(torch.int32)), block_table.shape[1]
        k_steps, v_steps = k.stride(), v.stride()
    names = ("page", "place", "head", "step")
    return {
        **{"k_ptr": k, "v_ptr": v, "pages_ptr": pages, "pages_width": width},
        "page_size": 1 if block_table is None else k.shape[1],
        **{f"k_{name}": step for name, step in zip(names, k_steps, strict=True)},
        **{f"v_{name}": step for name, step in zip(names, v_steps, strict=True)},
        "PAGED": block_table is not None,
    }


def _in_place(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()


@triton.jit
def column(bits, j, COUNT: tl.constexpr):
    """Column j of integers [rows, COUNT], as [rows, 1]: a sum of which all terms but one are 0."""
    here = tl.arange(0, COUNT)[None, :] == j
    return tl.sum(tl.where(here, bits, 0), axis=1, keep_dims=True).to(tl.int32)


@triton.jit
def key_places(
    pages_ptr, pages_width, sequence, start, position, seen, size, page, place, PAGED: tl.constexpr
):
    """Where positions of a sequence lie, int64 elements from the beginning of their head."""
    if PAGED:
        at = pages_ptr + sequence.to(tl.int64) * pages_width + position // size
        number = tl.load(at, mask=seen, other=0).to(tl.int64)
        return number * page + (position % size) * place
    else:
        return (start + position).to(tl.int64) * place


@triton.jit
def dots(
    a_ptr,
    a_places,
    a_live,
    a_step,
    b_ptr,
    b_places,
    b_live,
    b_step,
    width,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """[A, B]: products of rows of `width` elements, one accumulator each from +0."""
    total = tl.zeros((A, B), tl.float32)
    if IN_ORDER:
        for d in range(0, width):
            a = load(a_ptr + a_places[:, None] + d * a_step, a_live[:, None])
            b = load(b_ptr + b_places[None, :] + d * b_step, b_live[None, :])
            total = tl.fma(a, b, total)
    else:
        d = tl.arange(0, WIDTH)
        inside = d < width
        a = tl.load(
            a_ptr + a_places[:, None] + d[None, :] * a_step,
            mask=a_live[:, None] & inside[None, :],
            other=0.0,
        )
        b = tl.load(
            b_ptr + b_places[None, :] + d[:, None] * b_step,
            mask=b_live[None, :] & inside[:, None],
            other=0.0,
        )
        total = dot_added(a, b, total, WIDEN)
    return total


@triton.jit
def add_products(
    total,
    weight,
    visible,
    x_ptr,
    places,
    live,
    step,
    width,
    low,
    high,
    ROUND: tl.constexpr,
    IN_ORDER: tl.constexpr,
    WIDEN: tl.constexpr,
    B: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """total [A, WIDTH] + weight [A, B] times rows x [B, width]; what is not visible left out.

    Only rows low ≤ j < high may be visible. `ROUND`: the weight is rounded to the dtype of x.
    """
    d = tl.arange(0, WIDTH)[None, :]
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    if IN_ORDER:
        if ROUND:
            weight = through(weight, dtype)
        bits = weight.to(tl.int32, bitcast=True)
        seen = tl.where(visible, 1, 0)
        which = tl.arange(0, B)
        for j in range(low, high):
            place = tl.sum(tl.where(which == j, places, 0), axis=0)
            x = load(x_ptr + place + d * step, d < width)
            factor = column(bits, j, B).to(tl.float32, bitcast=True)
            total = tl.where(column(seen, j, B) > 0, tl.fma(factor, x, total), total)
    else:
        inside = live[:, None] & (d < width)
        x = tl.load(x_ptr + places[:, None] + d * step, mask=inside, other=0.0)
        finite = tl.abs(widened(x)) < INFINITY
        weight = tl.where(visible, weight, 0.0)
        # 0 times what a row does not see would be NaN if that is not finite, so such elements go in
        # as 0, and make NaN afterwards of the sums of those that see them.
        x = tl.where(finite, x, tl.zeros_like(x))
        if ROUND and not WIDEN:
            total = tl.dot(rounded(weight, dtype), x, total)
        else:
            if ROUND:
                weight = through(weight, dtype)
            total = tl.dot(weight, widened(x), total, input_precision="ieee")
        if tl.max(tl.where(finite, 0, 1)) > 0:
            met = tl.dot(
                tl.where(visible, 1.0, 0.0).to(tl.float16),
                tl.where(finite, 0.0, 1.0).to(tl.float16),
            )
            total = tl.where(met > 0.0, float("nan"), total)
    return total


@triton.jit
def score_of(product, scale, soft_cap, CAPPED: tl.constexpr):
    """Score, and tanh of it where there is a soft cap."""
    scaled = product * scale
    if CAPPED:
        turned = tanh(divided(scaled, tl.zeros_like(scaled) + soft_cap))
        return soft_cap * turned, turned
    else:
        return scaled, scaled


@triton.jit
def add_to_lanes(lanes, term, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Sixteen keys after sixteen. No term is negative or −0: adding +0 leaves each as it is."""
    chunks = tl.reshape(term, (ROWS, KEYS // LANES, LANES))
    which = tl.arange(0, KEYS // LANES)[None, :, None]
    for chunk in tl.static_range(KEYS // LANES):
        lanes += tl.sum(tl.where(which == chunk, chunks, 0.0), axis=1)
    return lanes
