"""Matrix products with one float32 accumulator per output, K ascending: linear and the gradients of
its weight and bias, bmm, and a linear layer whose K is spread over ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.reference.arithmetic import Float32, column_sum, fma, fma_flushing, fold
from driftscope_kernels.reference.arrays import rounded, widened


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    tp_segments: int = 1,
    weight_pack: object = None,
    out_dtype: torch.dtype | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """x [..., K] times weight [N, K] plus bias [N].

    `out_dtype` float32 gives the accumulator itself, unrounded. `initial` [..., N] float32 is what
    the accumulator starts from instead of +0, to go on with a sum along K. `weight_pack` is for
    implementations that pack; the result is the same with and without.
    """
    rows = widened(x).reshape(x.shape[:-1].numel(), x.shape[-1])
    start = None if initial is None else widened(initial).reshape(len(rows), len(weight))
    total = segmented(rows, widened(weight), x.dtype, tp_segments, start)
    if bias is not None:
        with np.errstate(all="ignore"):
            total = total + widened(bias)
    return rounded(total, out_dtype or x.dtype).reshape(*x.shape[:-1], len(weight))


def segmented(
    x: Float32, weight: Float32, dtype: torch.dtype, segments: int, initial: Float32 | None
) -> Float32:
    """Accumulator [M, N]: one chain, or eight chains over segments of K merged by a fixed tree."""
    if segments == 1:
        return chain(x, weight, dtype, initial)
    if segments != TP_SEGMENTS or initial is not None:
        raise ValueError(
            f"tp_segments = {segments}: 1 and {TP_SEGMENTS} are accepted, and {TP_SEGMENTS} only "
            "without `initial`"
        )
    bounds = segment_bounds(x.shape[1])
    return merged([chain(x[:, a:b], weight[:, a:b], dtype) for a, b in bounds])


def segment_bounds(k: int, segments: int = TP_SEGMENTS) -> list[tuple[int, int]]:
    """Start and end of each of the equal segments of K."""
    if k % segments:
        raise ValueError(
            f"K = {k} cannot be cut in {segments} equal segments; tp_segments={segments} takes a K "
            f"that is a multiple of {segments}, tp_segments=1 takes any"
        )
    return [(i * k // segments, (i + 1) * k // segments) for i in range(segments)]


def merged(parts: Sequence[Float32]) -> Float32:
    """Neighbours added pairwise until one is left: ((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7))."""
    with np.errstate(all="ignore"):
        while len(parts) > 1:
            parts = [parts[i] + parts[i + 1] for i in range(0, len(parts), 2)]
    return parts[0]


def chain(
    x: Float32, weight: Float32, dtype: torch.dtype, initial: Float32 | None = None
) -> Float32:
    """One float32 accumulator per output, from `initial` or +0, along K in ascending order."""
    total = np.zeros((len(x), len(weight)), np.float32) if initial is None else initial
    if dtype == torch.bfloat16:
        return _pairs(x, weight, total)
    for k in range(x.shape[1]):
        total = fma(x[:, k, None], weight[None, :, k], total)
    return total


def _pairs(x: Float32, weight: Float32, total: Float32) -> Float32:
    """bfloat16: two by two, the odd element of a pair first, subnormal numbers flushed.

    That is what the instruction VDPBF16PS does (Intel SDM volume 2, VDPBF16PS).
    """
    if x.shape[1] % 2:
        x, weight = (np.pad(v, ((0, 0), (0, 1))) for v in (x, weight))
    for k in range(0, x.shape[1], 2):
        for i in (k + 1, k):
            total = fma_flushing(x[:, i, None], weight[None, :, i], total)
    return total


def linear_weight_grad(dy: Tensor, x: Tensor, carry: Tensor | None = None) -> Tensor:
    """dW[n, k] = Σ_m dy[m, n]·x[m, k], float32 [N, K].

    Each block of ROW_BLOCK rows is a linear layer along m, by the contract of the dtype and without
    rounding; the blocks are added in order to `carry` [N, K] float32, or to +0.
    """
    wide_dy, wide_x = widened(dy), widened(x)
    total = fold(
        len(wide_x),
        lambda rows: chain(wide_dy[rows].T, wide_x[rows].T, x.dtype),
        (wide_dy.shape[1], wide_x.shape[1]),
        None if carry is None else widened(carry),
    )
    return rounded(total, torch.float32)


def linear_bias_grad(dy: Tensor, carry: Tensor | None = None) -> Tensor:
    """db[n] = Σ_m dy[m, n], float32 [N]: in blocks of ROW_BLOCK rows, as the weight."""
    wide = widened(dy)
    total = fold(
        len(wide),
        lambda rows: column_sum(wide[rows]),
        (wide.shape[1],),
        None if carry is None else widened(carry),
    )
    return rounded(total, torch.float32)


def bmm(a: Tensor, b: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """a[i]·b[i] with k ascending in one float32 accumulator per output."""
    out = a.new_empty((len(a), a.shape[1], b.shape[2]), dtype=out_dtype or a.dtype)
    for i in range(len(a)):
        out[i] = linear(a[i], b[i].transpose(0, 1), out_dtype=out_dtype)
    return out


RANKS = (1, 2, 4, 8)


def rank_partial(x: Tensor, weight: Tensor, ranks: int) -> Tensor:
    """float32 [M, N] of one rank: its 8/ranks consecutive segments, merged by their subtree.

    x [M, K/ranks] and weight [N, K/ranks] are the rank's own consecutive part of K.
    """
    if ranks not in RANKS:
        raise ValueError(f"ranks = {ranks}; the tree of eight segments serves {RANKS}")
    wide_x, wide_weight = widened(x), widened(weight)
    bounds = segment_bounds(x.shape[1], TP_SEGMENTS // ranks)
    parts = [chain(wide_x[:, a:b], wide_weight[:, a:b], x.dtype) for a, b in bounds]
    return rounded(merged(parts), torch.float32)


def merge_ranks(partials: Sequence[Tensor], bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Neighbouring ranks added pairwise until one is left, then bias, then one rounding.

    An all-gather followed by this is the all-reduce that keeps the bits; a ring is not.
    """
    total = merged([widened(partial) for partial in partials])
    return rounded(total if bias is None else total + widened(bias), dtype)
