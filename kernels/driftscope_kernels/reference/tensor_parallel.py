"""A linear layer whose K is spread over ranks, with the bits of one rank.

In: what each rank holds of x and weight. Out: partial sums per rank, float32, and their merger.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.linear import chain, merged, segment_bounds

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
