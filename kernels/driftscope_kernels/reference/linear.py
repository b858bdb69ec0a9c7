"""Linear layer: y[m, n] = Σ_k x[m, k]·w[n, k] + bias[n], one float32 accumulator, k ascending.

In: x [..., K], weight [N, K], one dtype. Out: [..., N], rounded once to that dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.fma import Float32, fma, fma_flushing


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
