"""Where the queries, keys and values of attention lie: sequences one after another, or pages.

In: packed queries, lengths, keys and values, perhaps a block table. Out: one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

INTEGERS = (torch.int32, torch.int64)


class AttentionShapeError(ValueError):
    """Queries, keys, lengths or a block table that do not fit together."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence: its query tokens are the last ones of its keys."""

    queries: slice  # into the packed queries
    keys: Tensor  # [L] int64: where each position lies in `tokens` of keys and values

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Absolute position of each query token."""
        count = self.queries.stop - self.queries.start
        return np.arange(len(self.keys) - count, len(self.keys))


def sequences(
    k: Tensor, cu_seqlens_q: Tensor, seqlens_k: Tensor, block_table: Tensor | None
) -> Iterator[Sequence]:
    """All of a batch, in order."""
    starts, lengths = cu_seqlens_q.tolist(), seqlens_k.tolist()
    end = 0
    for i, length in enumerate(lengths):
        position = torch.arange(length)
        end += length
        if block_table is None:
            keys = end - length + position
        else:
            size = k.shape[1]
            keys = block_table[i].long()[position // size] * size + position % size
        yield Sequence(slice(starts[i], starts[i + 1]), keys)


def tokens(x: Tensor, paged: bool) -> Tensor:
    """[tokens, KH, D] of keys or values: pages [pages, page size, KH, D] one after another."""
    return x.flatten(0, 1) if paged else x


def check_batch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    block_table: Tensor | None,
    window: int | None,
) -> None:
    """Raise AttentionShapeError unless the shapes are those of `attention`."""
    dims = 3 if block_table is None else 4
    if q.dim() != 3 or k.dim() != dims or k.shape != v.shape or k.shape[-1] != q.shape[2]:
        raise AttentionShapeError(
            f"attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}; expected q "
            "[T, H, D], k and v [S, KH, D] or, with a block_table, [pages, page size, KH, D]"
        )
    if k.shape[-2] == 0 or q.shape[1] % k.shape[-2]:
        raise AttentionShapeError(
            f"attention: {q.shape[1]} query heads cannot share {k.shape[-2]} key heads evenly"
        )
    if window is not None and window < 1:
        raise AttentionShapeError(f"attention: window = {window}; give at least 1, or None")
    count = seqlens_k.numel()
    if (
        cu_seqlens_q.shape != (count + 1,)
        or seqlens_k.shape != (count,)
        or cu_seqlens_q.dtype not in INTEGERS
        or seqlens_k.dtype not in INTEGERS
        or (block_table is not None and (block_table.dim() != 2 or len(block_table) != count))
    ):
        raise AttentionShapeError(
            f"attention: cu_seqlens_q {tuple(cu_seqlens_q.shape)} {cu_seqlens_q.dtype}, seqlens_k "
            f"{tuple(seqlens_k.shape)} {seqlens_k.dtype}, block_table "
            f"{None if block_table is None else tuple(block_table.shape)}; for B sequences they "
            "are integers [B + 1], [B] and [B, pages]"
        )


def check_lengths(
    q: Tensor, k: Tensor, cu_seqlens_q: Tensor, seqlens_k: Tensor, paged: bool
) -> None:
    """Raise AttentionShapeError unless the lengths add up."""
    starts, lengths = cu_seqlens_q.tolist(), seqlens_k.tolist()
    if starts[0] != 0 or starts[-1] != len(q):
        raise AttentionShapeError(
            f"attention: cu_seqlens_q goes from {starts[0]} to {starts[-1]}; expected 0 to {len(q)}"
        )
    for i, length in enumerate(lengths):
        asked = starts[i + 1] - starts[i]
        if not 0 <= asked <= length:
            raise AttentionShapeError(
                f"attention: sequence {i} has {asked} queries and {length} keys; the queries are "
                "the last tokens of the sequence"
            )
    if not paged and sum(lengths) != len(k):
        raise AttentionShapeError(
            f"attention: seqlens_k adds up to {sum(lengths)}, k has {len(k)} tokens"
        )


def vllm_pages(cache: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [pages, page size, KH, D] as views of a cache of vLLM's CPU attention.

    `cache` is [pages, KH, page size, 2·D], contiguous (V/v1/attention/backends/cpu_attn.py): per
    page and head first the keys, transposed to [D, page size], then the values [page size, D].
    """
    pages, heads, size, both = cache.shape
    halves = cache.view(pages, heads, 2, size * both // 2)
    keys = halves[:, :, 0].view(pages, heads, both // 2, size)
    values = halves[:, :, 1].view(pages, heads, size, both // 2)
    return keys.permute(0, 3, 1, 2), values.permute(0, 2, 1, 3)
