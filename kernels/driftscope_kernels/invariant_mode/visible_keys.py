"""An attention mask as sequences: which queries see all keys from some position up to their own.

In: whether each query sees each key. Out: runs of such queries, as the attention kernel takes them,
and the queries left over (padding, and masks of other kinds).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Runs:
    """Sequences of causal attention within a batch; rows count through [batch · length]."""

    queries: Tensor  # int64 [T], rows of the queries, sequence after sequence
    keys: Tensor  # int64 [S], rows of the keys
    cu_seqlens_q: Tensor  # int32 [sequences + 1]
    seqlens_k: Tensor  # int32 [sequences]
    others: Tensor  # int64 [n, 2], batch and query of those that are in no sequence


def causal_runs(batch: int, queries: int, keys: int) -> Runs:
    """No mask: every query sees the keys up to its own position, counted from the first key."""
    used = min(queries, keys)
    offsets = torch.arange(batch)[:, None]
    return Runs(
        (offsets * queries + torch.arange(used)).flatten(),
        (offsets * keys + torch.arange(used)).flatten(),
        torch.arange(batch + 1, dtype=torch.int32) * used,
        torch.full((batch,), used, dtype=torch.int32),
        torch.cartesian_prod(torch.arange(batch), torch.arange(used, queries)).reshape(-1, 2),
    )


def masked_runs(visible: Tensor) -> Runs:
    """visible: bool [batch, queries, keys]; the queries are the last ones of the keys."""
    batch, queries, keys = visible.shape
    own = torch.arange(queries) + (keys - queries)
    first = visible.int().argmax(-1)
    # As many as from the first to its own, and nothing after its own: there is no gap in between.
    seen_after = (visible & (torch.arange(keys) > own[:, None])).any(-1)
    in_run = (visible.sum(-1) == own - first + 1) & ~seen_after & (own >= first)
    begins = in_run.clone()
    begins[:, 1:] &= (first[:, 1:] != first[:, :-1]) | ~in_run[:, :-1]
    edges = begins | ~in_run
    query_rows, key_rows, counts, lengths = [], [], [0], []
    for b, begin in begins.nonzero().tolist():
        following = edges[b, begin + 1 :].nonzero()
        end = begin + 1 + int(following[0]) if len(following) else queries
        start, stop = int(first[b, begin]), int(own[end - 1]) + 1
        query_rows.append(torch.arange(begin, end) + b * queries)
        key_rows.append(torch.arange(start, stop) + b * keys)
        counts.append(end - begin)
        lengths.append(stop - start)
    empty = torch.empty(0, dtype=torch.int64)
    return Runs(
        torch.cat(query_rows) if query_rows else empty,
        torch.cat(key_rows) if key_rows else empty,
        torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32),
        torch.tensor(lengths, dtype=torch.int32),
        (~in_run).nonzero(),
    )
