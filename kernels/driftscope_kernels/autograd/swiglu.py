"""swiglu, differentiable.

In: gate and up of one shape and dtype. Out: the same, by the contract "swiglu".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import require_same_dtype, require_shape
from driftscope_kernels.options import VLLM, SwigluOptions
from driftscope_kernels.registry import implementation


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, options: SwigluOptions) -> Any:
        ctx.save_for_backward(gate, up)
        ctx.options = options
        return implementation("swiglu", gate.dtype)(gate, up, options=options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        run = implementation("swiglu_backward", gate.dtype)
        return *run(dy, gate, up, options=ctx.options), None


_apply: Callable[..., Any] = _Swiglu.apply


def swiglu(gate: Tensor, up: Tensor, *, options: SwigluOptions = VLLM.swiglu) -> Tensor:
    """silu(gate)·up, element by element."""
    require_same_dtype("swiglu", gate=gate, up=up)
    require_shape("swiglu", "up", up, tuple(gate.shape))
    y: Tensor = _apply(gate, up, options)
    return y
