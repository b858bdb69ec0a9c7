"""scaled_dot_product_attention by our attention kernel, whatever the layout of the batch.

In: what the torch function takes. Out: the same, where a sequence has the same bits alone, padded
on either side, or packed: the kernel is given the sequences that the mask describes, not the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from driftscope_kernels import ops
from driftscope_kernels.autograd.attention import attention
from driftscope_kernels.invariant_mode.aten_ops import InvariantModeError, autocast, eligible
from driftscope_kernels.options import TRANSFORMERS_ATTENTION


@dataclass(frozen=True, slots=True)
class Runs:
    """Sequences of causal attention within a batch; rows count through [batch · length]."""

    queries: Tensor  # int64 [T], rows of the queries, sequence after sequence
    keys: Tensor  # int64 [S], rows of the keys
    cu_seqlens_q: Tensor  # int32 [sequences + 1]
    seqlens_k: Tensor  # int32 [sequences]
    others: Tensor  # int64 [n, 2], batch and query of those that are in no sequence
    window: int | None = None  # keys that a query sees at most, its own the last of them


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
    seen = visible.sum(-1)
    in_run = (seen == own - first + 1) & ~seen_after & (own >= first)
    goes_on = (first[:, 1:] == first[:, :-1]) & in_run[:, :-1]
    window = _window(first, seen, in_run)
    if window is not None:
        full = (seen[:, 1:] == window) & (seen[:, :-1] == window)
        goes_on |= (first[:, 1:] == first[:, :-1] + 1) & full & in_run[:, :-1]
    begins = in_run.clone()
    begins[:, 1:] &= ~goes_on
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
        window,
    )


def _window(first: Tensor, seen: Tensor, in_run: Tensor) -> int | None:
    """Keys that each query sees where the first of them moves on with it; None without such.

    Taken as runs of their own those queries would add up from their first key on, while a kernel
    with a window adds up from the first key of the sequence.
    """
    moves = (first[:, 1:] == first[:, :-1] + 1) & in_run[:, 1:] & in_run[:, :-1]
    moves &= seen[:, 1:] == seen[:, :-1]
    counts = torch.unique(seen[:, 1:][moves])
    if len(counts) != 1:
        return None
    window = int(counts)
    # A sequence whose beginning is not among the queries: where its tiles begin is not known.
    cut = in_run[:, 0] & (seen[:, 0] == window) & (first[:, 0] > 0)
    wider = in_run & (seen > window)
    return None if bool((cut | wider.any(1)).any()) else window


# One mask serves all layers of a forward pass; what it describes is worked out once.
_runs_of_mask: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """query [B, H, Q, D], key and value [B, KH, K, D]; as torch.nn.functional has it."""
    if dropout_p > 0:
        raise InvariantModeError(
            f"attention with dropout_p = {dropout_p}: which probabilities are dropped depends on "
            "the place in the batch. Set attention_dropout to 0 or call model.eval()."
        )
    query, key, value = autocast(query, key, value)
    if not eligible(query, key, value) or query.dim() != 4 or not _shapes_fit(query, key, value):
        return NotImplemented
    if attn_mask is not None and (is_causal or not _is_plain(attn_mask, query, key)):
        return NotImplemented
    if enable_gqa and torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
        # With a mask transformers repeats the heads itself: the gradients are to be summed alike.
        group = query.shape[1] // key.shape[1]
        key, value = _repeated(key, group), _repeated(value, group)
    factor = query.shape[3] ** -0.5 if scale is None else scale
    return _by_runs(query, key, value, _runs(query, key, attn_mask, is_causal), attn_mask, factor)


def _shapes_fit(query: Tensor, key: Tensor, value: Tensor) -> bool:
    (batch, heads, _, size), others = query.shape, (key.shape, value.shape)
    return key.shape == value.shape and all(
        shape[0] == batch and shape[3] == size and heads % shape[1] == 0 for shape in others
    )


def _is_plain(mask: Tensor, query: Tensor, key: Tensor) -> bool:
    """One bool mask for all heads. Others have no causal sequences to find."""
    shape = (query.shape[0], 1, query.shape[2], key.shape[2])
    return mask.dtype == torch.bool and mask.dim() == 4 and mask.shape in (shape, (1, *shape[1:]))


def _runs(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool) -> Runs:
    batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if mask is None and is_causal:
        return causal_runs(batch, queries, keys)
    if mask is None:
        return masked_runs(torch.ones(batch, queries, keys, dtype=torch.bool))
    if mask not in _runs_of_mask or _runs_of_mask[mask][0] != mask._version:
        _runs_of_mask[mask] = (mask._version, masked_runs(mask[:, 0].expand(batch, -1, -1)))
    found: Runs = _runs_of_mask[mask][1]
    return found


def _by_runs(
    query: Tensor, key: Tensor, value: Tensor, runs: Runs, mask: Tensor | None, scale: float
) -> Tensor:
    rows = _rows(query)
    seen = attention(
        rows.index_select(0, runs.queries),
        _rows(key).index_select(0, runs.keys),
        _rows(value).index_select(0, runs.keys),
        cu_seqlens_q=runs.cu_seqlens_q,
        seqlens_k=runs.seqlens_k,
        scale=scale,
        window=runs.window,
        options=TRANSFORMERS_ATTENTION,
    )
    out = torch.zeros_like(rows).index_copy(0, runs.queries, seen)
    length = query.shape[2]
    for batch in sorted(set(runs.others[:, 0].tolist())):
        queries = runs.others[runs.others[:, 0] == batch, 1]
        visible = None if mask is None else mask[batch % len(mask), 0].index_select(0, queries)
        part = _dense(
            query[batch].index_select(1, queries), key[batch], value[batch], visible, scale
        )
        out = out.index_copy(0, batch * length + queries, part.transpose(0, 1))
    return out.reshape(query.shape[0], length, *rows.shape[1:]).transpose(1, 2)


def _dense(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float
) -> Tensor:
    """[H, n, D] of queries that see any set of keys; nothing for those that see none."""
    group = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    scores = ops.bmm(query, key.transpose(1, 2)) * scale
    if visible is None:
        return ops.bmm(ops.softmax(scores, -1), value)
    sees = visible.any(-1, keepdim=True)
    scores = scores.masked_fill(~visible & sees, float("-inf"))
    return ops.bmm(ops.softmax(scores, -1), value).masked_fill(~sees, 0.0)


def _rows(x: Tensor) -> Tensor:
    """[B · length, heads, D] of [B, heads, length, D]."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _repeated(x: Tensor, group: int) -> Tensor:
    """[B, KH · group, K, D], as `repeat_kv` of transformers makes it."""
    batch, heads, length, size = x.shape
    wide = x[:, :, None].expand(batch, heads, group, length, size)
    return wide.reshape(batch, heads * group, length, size)
