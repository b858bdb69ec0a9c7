"""attention, differentiable with regard to queries, keys and values that lie one after another.

In: q, k and v of one dtype, lengths. Out: [T, H, D] in that dtype, by the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import ArgumentError, require_same_dtype
from driftscope_kernels.options import VLLM_ATTENTION, AttentionOptions
from driftscope_kernels.reference.attention_sequences import check_batch
from driftscope_kernels.registry import implementation


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, arguments: dict[str, Any]) -> Any:
        ctx.save_for_backward(q, k, v)
        ctx.arguments = arguments
        return implementation("attention", q.dtype)(q, k, v, **arguments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        run = implementation("attention_backward", q.dtype)
        return *run(dy, q, k, v, **ctx.arguments), None


_apply: Callable[..., Any] = _Attention.apply


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    block_table: Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    soft_cap: float | None = None,
    options: AttentionOptions | None = None,
) -> Tensor:
    """Causal attention of sequences that lie one after another; q [T, H, D] → [T, H, D].

    Sequence b has queries cu_seqlens_q[b] to cu_seqlens_q[b + 1] of q, which are the last of its
    seqlens_k[b] tokens. k and v are [S, KH, D], all tokens of all sequences, or pages [pages, page
    size, KH, D] with block_table [B, pages of a sequence]; H is a multiple of KH. A query sees the
    keys up to its own position, the last `window` of them. `scale` left out is 1 / √D, `options`
    are those of vLLM. The same bits whether a token is decoded, prefilled or part of a chunk,
    whatever the pages. Gradients only without a block table.
    """
    require_same_dtype("attention", q=q, k=k, v=v)
    check_batch(q, k, v, cu_seqlens_q, seqlens_k, block_table, window)
    arguments: dict[str, Any] = {
        "cu_seqlens_q": cu_seqlens_q,
        "seqlens_k": seqlens_k,
        "scale": q.shape[2] ** -0.5 if scale is None else scale,
        "window": window,
        "soft_cap": soft_cap,
        "options": options or VLLM_ATTENTION,
    }
    if block_table is None:
        y: Tensor = _apply(q, k, v, arguments)
        return y
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise ArgumentError(
            "attention: gradients need keys and values one after another; give k and v [S, KH, D] "
            "without block_table, or use torch.no_grad()"
        )
    run = implementation("attention", q.dtype)
    paged: Tensor = run(q, k, v, block_table=block_table, **arguments)
    return paged
