"""rotary, differentiable with regard to what is turned, not to the angles.

In: queries and keys of one dtype, tables of cosines and sines. Out: both turned, by the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import ArgumentError, require_same_dtype, require_shape
from driftscope_kernels.options import VLLM, RotaryOptions
from driftscope_kernels.registry import implementation


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, options: RotaryOptions
    ) -> Any:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved, ctx.options = interleaved, options
        run = implementation("rotary", x.dtype)
        return run(x, cos, sin, interleaved=interleaved, options=options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        run = implementation("rotary", dy.dtype)
        dx = run(dy, cos, -sin, interleaved=ctx.interleaved, options=ctx.options)
        return dx, None, None, None, None


_apply: Callable[..., Any] = _Rotary.apply


def rotary(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    options: RotaryOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """q [..., heads, D] and k [..., kv_heads, D] turned by the angles of cos and sin [..., R/2].

    R ≤ D is the part that is turned; the tables hold each angle once. Pairs are elements i and
    i + R/2, or 2i and 2i + 1 if `interleaved`. Options left out are those of the preset VLLM.
    """
    require_same_dtype("rotary", q=q, k=k)
    require_same_dtype("rotary", cos=cos, sin=sin)
    require_shape("rotary", "sin", sin, tuple(cos.shape))
    for name, x in (("q", q), ("k", k)):
        if x.dim() < 2 or x.shape[:-2] != cos.shape[:-1] or 2 * cos.shape[-1] > x.shape[-1]:
            raise ArgumentError(
                f"rotary: {name} {tuple(x.shape)} does not fit the tables {tuple(cos.shape)}; for "
                "[..., heads, D] they have to be [..., R/2] with R ≤ D"
            )
    options = options or (VLLM.rotary_interleaved if interleaved else VLLM.rotary)
    turned_q: Tensor = _apply(q, cos, sin, interleaved, options)
    turned_k: Tensor = _apply(k, cos, sin, interleaved, options)
    return turned_q, turned_k
