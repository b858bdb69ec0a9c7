"""Log-probability of given tokens from hidden states, the vocabulary going by, as Triton kernels.

In: hidden [T, K], lm_head weight [V, K], targets [T]. Out: as
`driftscope_kernels.reference.token_logprob`. Memory: COLUMNS_HELD logits per row, never [T, V].
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import VOCABULARY_TILE, LogprobOptions
from driftscope_kernels.reference.token_logprob import TokenLogprobs
from driftscope_kernels.triton_kernels.arithmetic import (
    INFINITY,
    LANES,
    divided,
    exp,
    load,
    log,
    merge_lanes,
    merge_largest,
    rounded,
    through,
)
from driftscope_kernels.triton_kernels.launch import ROWS, aligned, as_rows, launch, programs
from driftscope_kernels.triton_kernels.linear import linear
from driftscope_kernels.triton_kernels.matmul import Dot, Operand, matmul
from driftscope_kernels.triton_kernels.softmax import program_rows

# Columns of logits in memory at a time: whole vocabulary tiles, enough for few launches.
COLUMNS_HELD = 16 * VOCABULARY_TILE
SLOPE_BLOCK = 256  # columns of one program of the gradient of the logits
ROUND_BLOCK = 1024
# The running sums of a row, as rows of one tensor [4, T].
MAXIMUM, TOTAL, MOMENT, TARGET = range(4)


@dataclass(frozen=True, slots=True)
class _Logits:
    """Accumulators [T, columns] float32 from vocabulary id `start` on, and how to read them."""

    start: int
    values: Tensor
    rounding: Tensor  # empty, of the dtype that logits are rounded to
    temperature: float


def token_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    top_k: int,
    options: LogprobOptions,
    dot: Dot = "tensor_cores",
) -> TokenLogprobs:
    """As `reference.token_logprob.token_logprob`; `dot` as in `linear`."""
    rows, wanted = as_rows(hidden), aligned(targets)
    sums = torch.zeros((4, len(rows)), dtype=torch.float32, device=rows.device)
    sums[MAXIMUM] = float("-inf")
    top = rows.new_empty((len(rows), 0), dtype=torch.float32)
    top_ids = wanted.new_empty((len(rows), 0))
    for logits in _parts(rows, weight, temperature, options, dot):
        scaled = torch.empty_like(logits.values) if top_k else logits.values
        _add_tiles(logits, wanted, sums, scaled, top_k > 0)
        if top_k:
            top, top_ids = _merged_top(top, top_ids, scaled, logits.start, top_k)
    results = torch.empty_like(sums[:2])
    top_logprobs = torch.empty_like(top)
    arguments = {
        **{"sums_ptr": sums, "top_ptr": aligned(top), "results_ptr": results},
        **{"top_logprobs_ptr": top_logprobs, "rows": len(rows), "top_k": top.shape[1]},
    }
    launch(finish_kernel, (programs(len(rows), ROWS),), {**arguments, "ROWS": ROWS})
    return TokenLogprobs(
        results[0], results[1], top_logprobs, top_ids, sums[MAXIMUM], sums[TOTAL], sums[MOMENT]
    )


def token_logprob_backward(
    dlogprob: Tensor,
    dentropy: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    result: TokenLogprobs,
    *,
    temperature: float,
    options: LogprobOptions,
    carry: Tensor | None = None,
    dot: Dot = "tensor_cores",
) -> tuple[Tensor, Tensor]:
    """As `reference.token_logprob.token_logprob_backward`."""
    rows, wanted = as_rows(hidden), aligned(targets)
    dhidden = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
    dweight = (
        torch.zeros(weight.shape, dtype=torch.float32, device=rows.device)
        if carry is None
        else carry.clone()
    )
    per_row = torch.stack(
        (result.largest, result.total, result.entropy, dlogprob.float(), dentropy.float())
    )
    for logits in _parts(rows, weight, temperature, options, dot):
        slope = _slopes(logits, wanted, per_row)
        held = weight[logits.start : logits.start + slope.shape[1]]
        dhidden = linear(slope, held.t(), initial=dhidden, dot=dot)
        _add_weight_grad(slope, rows, dweight[logits.start : logits.start + len(held)], dot)
    return _cast(dhidden, hidden), dweight


def _parts(
    rows: Tensor, weight: Tensor, temperature: float, options: LogprobOptions, dot: Dot
) -> Iterator[_Logits]:
    rounding = rows if options.logits == "rounded" else rows.new_empty(1, dtype=torch.float32)
    for start in range(0, len(weight), COLUMNS_HELD):
        part = weight[start : start + COLUMNS_HELD]
        yield _Logits(
            start, linear(rows, part, out_dtype=torch.float32, dot=dot), rounding, temperature
        )


def _add_tiles(
    logits: _Logits, targets: Tensor, sums: Tensor, scaled: Tensor, keep_scaled: bool
) -> None:
    rows, columns = logits.values.shape
    arguments = {
        **{"logits_ptr": logits.values, "rounding_ptr": logits.rounding, "targets_ptr": targets},
        **{"sums_ptr": sums, "scaled_ptr": scaled, "rows": rows, "columns": columns},
        **{"first_id": logits.start, "temperature": logits.temperature},
        **{"KEEP_SCALED": keep_scaled, "TILE": VOCABULARY_TILE, "ROWS": ROWS},
    }
    launch(add_tiles_kernel, (programs(rows, ROWS),), arguments)


def _merged_top(
    top: Tensor, ids: Tensor, scaled: Tensor, start: int, top_k: int
) -> tuple[Tensor, Tensor]:
    """Stable by falling logit: of equal logits the one with the lower id comes first."""
    here = torch.arange(start, start + scaled.shape[1], device=scaled.device).expand(scaled.shape)
    values, places = torch.cat([top, scaled], dim=1).sort(dim=1, descending=True, stable=True)
    chosen = torch.cat([ids, here], dim=1).gather(1, places[:, :top_k])
    return values[:, :top_k], chosen


def _slopes(logits: _Logits, targets: Tensor, per_row: Tensor) -> Tensor:
    """Gradient of the logits [T, columns] float32."""
    rows, columns = logits.values.shape
    slope = torch.empty_like(logits.values)
    arguments = {
        **{"logits_ptr": logits.values, "rounding_ptr": logits.rounding, "targets_ptr": targets},
        **{"per_row_ptr": per_row, "slope_ptr": slope, "rows": rows, "columns": columns},
        **{"first_id": logits.start, "temperature": logits.temperature},
        **{"BLOCK": SLOPE_BLOCK, "ROWS": ROWS},
    }
    launch(slope_kernel, (programs(rows, ROWS), programs(columns, SLOPE_BLOCK)), arguments)
    return slope


def _add_weight_grad(slope: Tensor, rows: Tensor, dweight: Tensor, dot: Dot) -> None:
    columns, k = dweight.shape
    matmul(
        Operand(slope, 1, columns),
        Operand(rows, 1, k),
        dweight,
        rows=columns,
        columns=k,
        k=(0, len(rows)),
        initial=dweight,
        fold=True,
        dot=dot,
    )


def _cast(wide: Tensor, like: Tensor) -> Tensor:
    """Rounded once to the dtype of `like`."""
    if like.dtype == torch.float32:
        return wide
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    arguments = {"x_ptr": wide, "out_ptr": out, "count": wide.numel(), "BLOCK": ROUND_BLOCK}
    launch(round_kernel, (programs(wide.numel(), ROUND_BLOCK),), arguments)
    return out


@triton.jit
def _scaled(logits_ptr, rounding_ptr, place, inside, temperature):
    """Logits as the softmax sees them: rounded if asked, divided by the temperature."""
    z = through(tl.load(logits_ptr + place, mask=inside, other=0.0), rounding_ptr.dtype.element_ty)
    return divided(z, tl.zeros_like(z) + temperature)


@triton.jit
def _moved(largest, total, moment, new_largest):
    """exp(own max − max) and the moment about the new maximum; 0 where that side is negligible."""
    down = tl.where(largest == new_largest, 0.0, largest - new_largest)
    factor = exp(down)
    return factor, tl.where(factor == 0.0, 0.0, tl.fma(total, down, moment))


@triton.jit(do_not_specialize=["rows", "first_id"])
def add_tiles_kernel(
    logits_ptr,
    rounding_ptr,
    targets_ptr,
    sums_ptr,
    scaled_ptr,
    rows,
    columns,
    first_id,
    temperature,
    KEEP_SCALED: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Maximum, Σ exp and Σ exp·(z − max) of each tile, merged into those so far in order."""
    row, live = program_rows(rows, ROWS)
    base = row * columns
    lane = tl.arange(0, LANES)[None, :]
    largest = tl.load(sums_ptr + row, mask=live, other=0.0)
    total = tl.load(sums_ptr + rows.to(tl.int64) + row, mask=live, other=0.0)
    moment = tl.load(sums_ptr + 2 * rows.to(tl.int64) + row, mask=live, other=0.0)
    for tile in range(0, columns, TILE):
        end = tl.minimum(tile + TILE, columns)
        most = tl.full((ROWS, LANES), -INFINITY, tl.float32)
        for start in range(tile, end, LANES):
            inside = live & (start + lane < end)
            z = _scaled(logits_ptr, rounding_ptr, base + start + lane, inside, temperature)
            if KEEP_SCALED:
                tl.store(scaled_ptr + base + start + lane, z, mask=inside)
            most = tl.maximum(most, tl.where(inside, z, -INFINITY), tl.PropagateNan.ALL)
        tile_largest = merge_largest(most, ROWS)
        terms = tl.zeros((ROWS, LANES), tl.float32)
        weighted = tl.zeros((ROWS, LANES), tl.float32)
        for start in range(tile, end, LANES):
            inside = live & (start + lane < end)
            z = _scaled(logits_ptr, rounding_ptr, base + start + lane, inside, temperature)
            below = z - tile_largest
            term = tl.where(inside, exp(below), 0.0)
            terms += term
            weighted = tl.fma(term, tl.where(term == 0.0, 0.0, below), weighted)
        # A tile of nothing but −∞ counts as empty.
        empty = tile_largest == -INFINITY
        tile_total = tl.where(empty, 0.0, merge_lanes(terms, ROWS))
        tile_moment = tl.where(empty, 0.0, merge_lanes(weighted, ROWS))
        new_largest = tl.maximum(largest, tile_largest, tl.PropagateNan.ALL)
        a, left = _moved(largest, total, moment, new_largest)
        b, right = _moved(tile_largest, tile_total, tile_moment, new_largest)
        total = tl.fma(tile_total, b, total * a)
        moment = tl.fma(right, b, left * a)
        largest = new_largest
    tl.store(sums_ptr + row, rounded(largest, tl.float32), mask=live)
    tl.store(sums_ptr + rows.to(tl.int64) + row, rounded(total, tl.float32), mask=live)
    tl.store(sums_ptr + 2 * rows.to(tl.int64) + row, rounded(moment, tl.float32), mask=live)
    wanted = tl.load(targets_ptr + row, mask=live, other=-1) - first_id
    here = live & (wanted >= 0) & (wanted < columns)
    z = _scaled(logits_ptr, rounding_ptr, base + wanted, here, temperature)
    tl.store(sums_ptr + 3 * rows.to(tl.int64) + row, z, mask=here)


@triton.jit(do_not_specialize=["rows"])
def finish_kernel(
    sums_ptr, top_ptr, results_ptr, top_logprobs_ptr, rows, top_k, ROWS: tl.constexpr
):
    row, live = program_rows(rows, ROWS)
    count = rows.to(tl.int64)
    largest = tl.load(sums_ptr + row, mask=live, other=0.0)
    total = tl.load(sums_ptr + count + row, mask=live, other=1.0)
    moment = tl.load(sums_ptr + 2 * count + row, mask=live, other=0.0)
    target = tl.load(sums_ptr + 3 * count + row, mask=live, other=0.0)
    log_total = log(total)
    tl.store(results_ptr + row, rounded((target - largest) - log_total, tl.float32), mask=live)
    entropy = log_total - divided(moment, total)
    tl.store(results_ptr + count + row, rounded(entropy, tl.float32), mask=live)
    for i in range(0, top_k):
        z = tl.load(top_ptr + row * top_k + i, mask=live, other=0.0)
        logprob = rounded((z - largest) - log_total, tl.float32)
        tl.store(top_logprobs_ptr + row * top_k + i, logprob, mask=live)


@triton.jit(do_not_specialize=["rows", "first_id"])
def slope_kernel(
    logits_ptr,
    rounding_ptr,
    targets_ptr,
    per_row_ptr,
    slope_ptr,
    rows,
    columns,
    first_id,
    temperature,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """dlogprob·(1[v = target] − p) − dentropy·p·(log p + H), divided by the temperature."""
    row, live = program_rows(rows, ROWS)
    count = rows.to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = live & (column < columns)
    place = row * columns + column
    largest = tl.load(per_row_ptr + row, mask=live, other=0.0)
    total = tl.load(per_row_ptr + count + row, mask=live, other=1.0)
    entropy = tl.load(per_row_ptr + 2 * count + row, mask=live, other=0.0)
    g = tl.load(per_row_ptr + 3 * count + row, mask=live, other=0.0)
    g_entropy = tl.load(per_row_ptr + 4 * count + row, mask=live, other=0.0)
    z = _scaled(logits_ptr, rounding_ptr, place, inside, temperature)
    logp = (z - largest) - log(total)
    p = exp(logp)
    wanted = tl.load(targets_ptr + row, mask=live, other=-1) - first_id
    slope = tl.fma(-p, g, tl.where(column == wanted, g, 0.0))
    surplus = tl.where(p == 0.0, 0.0, logp + entropy)
    slope = tl.fma(-(p * g_entropy), surplus, slope)
    slope = divided(slope, tl.zeros_like(slope) + temperature)
    tl.store(slope_ptr + place, rounded(slope, tl.float32), mask=inside)


@triton.jit(do_not_specialize=["count"])
def round_kernel(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    y = rounded(load(x_ptr + place, inside), out_ptr.dtype.element_ty)
    tl.store(out_ptr + place, y, mask=inside)
