"""Gradients as kernels: forward and backward of one op, ours or torch's. In: forward. Out: Run.

Inputs are those of docs/add-a-kernel.md: "dy" is the gradient from above. Weight gradients are
float32 and sum over micro-batches of params["micro_batch"] tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.check.twins.reassociated import TOKEN_INPUTS
from driftscope_kernels.registry import Run

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gradient:
    """Gradient of `forward` with respect to the inputs `of`, joined along dimension `joined`."""

    forward: str
    of: tuple[str, ...]
    joined: int = 0
    over_tokens: bool = False  # a weight gradient

    @property
    def op(self) -> str:
        return f"{self.forward}.grad" + (f"_{self.of[0]}" if len(self.of) == 1 else "")


GRADIENTS = (
    Gradient("linear", ("x",)),
    Gradient("linear", ("weight",), over_tokens=True),
    Gradient("linear", ("bias",), over_tokens=True),
    Gradient("bmm", ("x",)),
    # What a batch of matrices is multiplied with is a row input like any other.
    Gradient("bmm", ("weight",)),
    Gradient("rms_norm", ("x",)),
    Gradient("rms_norm", ("weight",), over_tokens=True),
    Gradient("add_rms_norm", ("x",)),
    Gradient("add_rms_norm", ("weight",), over_tokens=True),
    Gradient("softmax", ("x",)),
    Gradient("log_softmax", ("x",)),
    Gradient("logsumexp", ("x",)),
    Gradient("swiglu", ("x", "up"), joined=-1),
    Gradient("rotary", ("x", "key"), joined=1),
    Gradient("token_logprob", ("x",)),
    Gradient("token_logprob", ("weight",), over_tokens=True),
    Gradient("attention_prefill", ("x", "key", "value"), joined=2),
)


def gradients(forwards: Mapping[str, Run], *, main_grad: bool) -> Iterator[tuple[Gradient, Run]]:
    """Every gradient of the ops that are there."""
    for gradient in GRADIENTS:
        if gradient.forward in forwards:
            forward = forwards[gradient.forward]
            if gradient.over_tokens:
                yield gradient, _over_tokens(forward, gradient.of[0], main_grad=main_grad)
            else:
                yield gradient, _of_rows(forward, gradient)


def _of_rows(forward: Run, gradient: Gradient) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        leaves = {name: inputs[name].detach().requires_grad_() for name in gradient.of}
        with torch.enable_grad():
            y = forward({**inputs, **leaves}, params)
        found = torch.autograd.grad(y, list(leaves.values()), inputs["dy"])
        return torch.cat(found, dim=gradient.joined) if len(found) > 1 else found[0]

    return run


def _over_tokens(forward: Run, name: str, *, main_grad: bool) -> Run:
    """`main_grad`: into a float32 sum of its own, as `ops.attach_main_grad` offers; otherwise
    autograd adds up the micro-batches in the dtype of the weight.
    """

    def run(inputs: Inputs, params: Params) -> Tensor:
        weight = inputs[name].detach().clone().requires_grad_()
        total = ops.attach_main_grad(weight) if main_grad else None
        for part in _micro_batches(inputs, params):
            with torch.enable_grad():
                y = forward({**part, name: weight}, params)
            torch.autograd.backward([y], [part["dy"]])
        if total is None:
            assert weight.grad is not None
            total = weight.grad.float()
        return total

    return run


def _micro_batches(inputs: Inputs, params: Params) -> Iterator[dict[str, Tensor]]:
    tokens = len(inputs["x"])
    size = params["micro_batch"] or tokens
    for start in range(0, tokens, size):
        cut = {n: inputs[n][start : start + size] for n in TOKEN_INPUTS if n in inputs}
        yield {**inputs, **cut}
