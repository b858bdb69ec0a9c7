"""Attention and its gradients on the CPU: the bits of the reference, fast.

In: q [T, H, D], k and v [S, KH, D] or pages, any strides. Out: as
`driftscope_kernels.reference.attention`.
"""

from __future__ import annotations

from torch import Tensor

from driftscope_kernels.cpu.backend import chosen
from driftscope_kernels.options import AttentionOptions
from driftscope_kernels.reference.attention import attention as reference
from driftscope_kernels.reference.attention_backward import (
    attention_backward as reference_backward,
)

MOST_HEAD_SIZE = 256  # kMostHeadSize of csrc/attention/attention.h


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    block_table: Tensor | None = None,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    out: Tensor | None = None,
    options: AttentionOptions,
    isa: str | None = None,
) -> Tensor:
    """As `reference.attention.attention`; `isa` as in `cpu.linear.linear`.

    Fastest on keys as vLLM's CPU cache has them (`reference.attention_sequences.vllm_pages`):
    keys whose tokens lie side by side are read as they are, others are transposed first.
    """
    operators = chosen(isa)
    if operators is None or q.numel() == 0 or q.shape[2] > MOST_HEAD_SIZE:
        return reference(
            q, k, v, cu_seqlens_q=cu_seqlens_q, seqlens_k=seqlens_k, block_table=block_table,
            scale=scale, window=window, soft_cap=soft_cap, out=out, options=options,
        )  # fmt: skip
    y: Tensor = operators.attention.default(
        q, k, v, out, cu_seqlens_q, seqlens_k, block_table, scale, window, soft_cap or None,
        options.probabilities == "rounded", isa or "",
    )  # fmt: skip
    return y


def attention_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    seqlens_k: Tensor,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    options: AttentionOptions,
    isa: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.attention_backward.attention_backward`."""
    operators = chosen(isa)
    if operators is None or q.numel() == 0 or q.shape[2] > MOST_HEAD_SIZE:
        return reference_backward(
            dy, q, k, v, cu_seqlens_q=cu_seqlens_q, seqlens_k=seqlens_k, scale=scale,
            window=window, soft_cap=soft_cap, options=options,
        )  # fmt: skip
    dq, dk, dv = operators.attention_backward.default(
        dy.contiguous(), q, k, v, cu_seqlens_q, seqlens_k, scale, window, soft_cap or None,
        options.probabilities == "rounded", isa or "",
    )  # fmt: skip
    return dq, dk, dv
