"""scaled_dot_product_attention by our attention kernel, whatever the layout of the batch.

In: what the torch function takes. Out: the same, where a sequence has the same bits alone, padded
on either side, or packed: the kernel is given the sequences that the mask describes, not the mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from driftscope_kernels import ops
from driftscope_kernels.attention_options import TRANSFORMERS_ATTENTION
from driftscope_kernels.autograd.attention import attention
from driftscope_kernels.invariant_mode.eligible import autocast, eligible
from driftscope_kernels.invariant_mode.refusal import InvariantModeError
from driftscope_kernels.invariant_mode.visible_keys import Runs, causal_runs, masked_runs

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
        options=TRANSFORMERS_ATTENTION,
    )
    out = torch.zeros_like(rows).index_copy(0, runs.queries, seen)
    length = query.shape[2]
    for batch in sorted(set(runs.others[:, 0].tolist())):
        places = runs.others[runs.others[:, 0] == batch, 1]
        visible = None if mask is None else mask[batch % len(mask), 0].index_select(0, places)
        part = _dense(
            query[batch].index_select(1, places), key[batch], value[batch], visible, scale
        )
        out = out.index_copy(0, batch * length + places, part.transpose(0, 1))
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
