"""Gradients as kernels: forward and backward of one op, ours and torch's. Out: Run functions.

Inputs are those of docs/add-a-kernel.md: "dy" is the gradient from above. Row gradients return dX;
weight gradients return dW in float32, summed over micro-batches of params["micro_batch"] tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels import ops
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


def ours(implementation: str) -> Iterator[tuple[str, Run]]:
    """Op and function, through `ops` with this implementation and no other."""
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
