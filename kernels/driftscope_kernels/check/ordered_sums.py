"""Sums of the same terms in one order or another. In: terms, the name of an order. Out: the sum.

The plain order does not depend on the batch: matrix products are made one row at a time, everything
else row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.check.placement import thread_count

PLAIN = "plain"
#: The same terms in another order: from behind, in 2, 3 or 5 parts (8 would be
#: the blocks of 192 in which MKL itself cuts K = 1,536), even and odd positions apart.
SHUFFLED = "shuffled_"  # and a seed
CUT = "cut_"  # and the place of the one cut
ASSOCIATIONS = ("reverse", "split_2", "split_3", "split_5", "interleaved")
#: Positions of a context that are summed at a time.
KEY_TILE = 32


def row_sum(terms: Tensor, how: str) -> Tensor:
    """Along the last dimension; torch's own sum of a contiguous row does not see other rows."""
    parts = [part.contiguous().sum(-1) for part in _parts(terms, how)]
    return _in_order(parts)


def product(x: Tensor, weight: Tensor, how: str) -> Tensor:
    """x [M, K] · weight [N, K]ᵀ."""
    parts = zip(_parts(x, how), _parts(weight, how), strict=True)
    return _in_order([_row_by_row(left, right) for left, right in parts])


def _parts(terms: Tensor, how: str) -> list[Tensor]:
    if how == PLAIN:
        return [terms]
    if how == "reverse":
        return [terms.flip(-1)]
    if how == "interleaved":
        return [terms[..., ::2], terms[..., 1::2]]
    if how.startswith(SHUFFLED):
        generator = torch.Generator().manual_seed(int(how.removeprefix(SHUFFLED)))
        return [terms[..., torch.randperm(terms.shape[-1], generator=generator)]]
    if how.startswith(CUT):
        return list(terms.tensor_split([int(how.removeprefix(CUT))], dim=-1))
    return list(terms.tensor_split(int(how.removeprefix("split_")), dim=-1))


def _in_order(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _row_by_row(x: Tensor, weight: Tensor) -> Tensor:
    """Copies: where a row or the weight begins in memory chooses a path as well."""
    turned = weight.clone(memory_format=torch.contiguous_format).T
    # With several threads the vendor's GEMM splits even one row.
    with thread_count(1):
        return torch.cat([row.clone()[None] @ turned for row in x])


def context_sum(terms: Tensor, how: str) -> Tensor:
    """Plain: in tiles from position 0, so that masked positions behind a query change nothing."""
    if how != PLAIN:
        return row_sum(terms, how)
    behind = -terms.shape[-1] % KEY_TILE
    tiles = torch.nn.functional.pad(terms, (0, behind)).reshape(*terms.shape[:-1], -1, KEY_TILE)
    return _in_order(list(tiles.contiguous().sum(-1).unbind(-1)))
