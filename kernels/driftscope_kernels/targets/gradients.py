"""Gradients as kernels: forward and backward of one op, ours and torch's. Out: Run functions.

Inputs are those of docs/add-a-kernel.md: "dy" is the gradient from above. Row gradients return dX;
weight gradients return dW in float32, summed over micro-batches of params["micro_batch"] tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from driftscope_kernels import ops
from driftscope_kernels.attention_options import VLLM_ATTENTION
from driftscope_kernels.options import VLLM
from driftscope_kernels.registry import Run, using

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
#: x, then the weight where there is one.
Forward = Callable[[Tensor, Tensor | None, Params], Tensor]


def linear(x: Tensor, weight: Tensor | None, params: Params) -> Tensor:
    assert weight is not None
    return ops.linear(x, weight)


def rms_norm(x: Tensor, weight: Tensor | None, params: Params) -> Tensor:
    assert weight is not None
    return ops.rms_norm(x, weight, params["eps"], options=VLLM.norm)


def softmax(x: Tensor, weight: Tensor | None, params: Params) -> Tensor:
    return ops.softmax(x, params["dim"])


def log_softmax(x: Tensor, weight: Tensor | None, params: Params) -> Tensor:
    return ops.log_softmax(x, params["dim"])


OURS: Mapping[str, Forward] = {
    "linear": linear,
    "rms_norm": rms_norm,
    "softmax": softmax,
    "log_softmax": log_softmax,
}
#: The backward pass of attention takes minutes to check in plain Python; tests hold it to the same
#: bits as the compiled one.
TOO_SLOW = ("reference",)
WEIGHTED = ("linear", "rms_norm")


def grad_x(forward: Forward) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        x = inputs["x"].detach().requires_grad_()
        with torch.enable_grad():
            y = forward(x, inputs.get("weight"), params)
        (gradient,) = torch.autograd.grad(y, x, inputs["dy"])
        return gradient

    return run


def grad_weight(forward: Forward, *, main_grad: bool) -> Run:
    """`main_grad`: into a float32 sum of its own, as `ops.attach_main_grad` offers; otherwise
    autograd adds up the micro-batches in the dtype of the weight.
    """

    def run(inputs: Inputs, params: Params) -> Tensor:
        weight = inputs["weight"].detach().clone().requires_grad_()
        total = ops.attach_main_grad(weight) if main_grad else None
        for x, dy in _micro_batches(inputs, params):
            with torch.enable_grad():
                y = forward(x, weight, params)
            torch.autograd.backward([y], [dy])
        if total is None:
            assert weight.grad is not None
            total = weight.grad.float()
        return total

    return run


def attention_grad(inputs: Inputs, params: Params) -> Tensor:
    """dq, dk, dv of whole prompts [M, L, …], joined along the heads."""
    leaves = _leaves(inputs)
    sequences, length, _, width = leaves[0].shape
    with torch.enable_grad():
        y = ops.attention(
            *(leaf.flatten(0, 1) for leaf in leaves),
            cu_seqlens_q=torch.arange(0, (sequences + 1) * length, length, dtype=torch.int32),
            seqlens_k=torch.full((sequences,), length, dtype=torch.int32),
            scale=width**-0.5,
            options=VLLM_ATTENTION,
        )
    return torch.cat(torch.autograd.grad(y.view_as(leaves[0]), leaves, inputs["dy"]), dim=2)


def sdpa_grad(inputs: Inputs, params: Params) -> Tensor:
    """The same of torch's scaled_dot_product_attention."""
    leaves = _leaves(inputs)
    query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
    with torch.enable_grad():
        y = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        ).transpose(1, 2)
    return torch.cat(torch.autograd.grad(y, leaves, inputs["dy"]), dim=2)


def _leaves(inputs: Inputs) -> list[Tensor]:
    return [inputs[name].detach().requires_grad_() for name in ("x", "key", "value")]


def ours(implementation: str) -> Iterator[tuple[str, Run]]:
    """Op and function, through `ops` with this implementation and no other."""
    if implementation not in TOO_SLOW:
        yield "attention_prefill.grad", _with(implementation, attention_grad)
    for op, forward in OURS.items():
        yield f"{op}.grad_x", _with(implementation, grad_x(forward))
        if op in WEIGHTED:
            run = grad_weight(forward, main_grad=True)
            yield f"{op}.grad_weight", _with(implementation, run)


def _with(implementation: str, run: Run) -> Run:
    def forced(inputs: Inputs, params: Params) -> Tensor:
        with using(implementation):
            return run(inputs, params)

    return forced


def _micro_batches(inputs: Inputs, params: Params) -> Iterator[tuple[Tensor, Tensor]]:
    tokens = len(inputs["x"])
    size = params["micro_batch"] or tokens
    for start in range(0, tokens, size):
        yield inputs["x"][start : start + size], inputs["dy"][start : start + size]
