"""Rows of an op whose results change where the order of its additions does, chosen from many.

In: op, shape, dtype, seed, the op's other inputs for rows of x. Out: rows of x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from driftscope_kernels.check import inputs as kinds
from driftscope_kernels.check.case import EPS, MOST_ROWS, Shape
from driftscope_kernels.check.ordered_sums import PLAIN, SHUFFLED
from driftscope_kernels.check.reassociated import compute

Complete = Callable[[Tensor], Mapping[str, Tensor]]


def sensitive_rows(
    op: str, shape: Shape, rows: int, width: int, dtype: torch.dtype, seed: int, complete: Complete
) -> Tensor:
    """[rows, width]: `complete` gives the op's other inputs for rows of x."""
    key = (op, shape, width, dtype, seed)
    if key not in _chosen:
        pool_rows = min(kinds.POOL_ROWS, max(MOST_ROWS, kinds.POOL_VALUES // width))
        pool = kinds.values(kinds.NORMAL, pool_rows, width, dtype, Generator().manual_seed(seed))

        def results(x: Tensor, order: int | None) -> Tensor:
            how = PLAIN if order is None else f"{SHUFFLED}{order}"
            return compute(op, complete(x), {"eps": EPS}, how)

        _chosen[key] = kinds.sensitive(pool, MOST_ROWS, results)
    return _chosen[key][:rows]


#: Choosing takes seconds, and every twin is tried on the same rows.
_chosen: dict[tuple[str, Shape, int, torch.dtype, int], Tensor] = {}
