"""Our ops through `driftscope_kernels.ops`, as a trainer differentiates them. Out: Run functions.

Which implementation runs is what `using` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.attention_options import VLLM_ATTENTION
from driftscope_kernels.options import VLLM
from driftscope_kernels.registry import Run, using

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


def linear(inputs: Inputs, params: Params) -> Tensor:
    return ops.linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def bmm(inputs: Inputs, params: Params) -> Tensor:
    return ops.bmm(inputs["x"], inputs["weight"])


def rms_norm(inputs: Inputs, params: Params) -> Tensor:
    return ops.rms_norm(inputs["x"], inputs["weight"], params["eps"], options=VLLM.norm)


def add_rms_norm(inputs: Inputs, params: Params) -> Tensor:
    tensors = (inputs["x"], inputs["residual"], inputs["weight"])
    return torch.cat(ops.add_rms_norm(*tensors, params["eps"], options=VLLM.norm), dim=-1)


def softmax(inputs: Inputs, params: Params) -> Tensor:
    return ops.softmax(inputs["x"], params["dim"])


def log_softmax(inputs: Inputs, params: Params) -> Tensor:
    return ops.log_softmax(inputs["x"], params["dim"])


def logsumexp(inputs: Inputs, params: Params) -> Tensor:
    return ops.logsumexp(inputs["x"], params["dim"])


def swiglu(inputs: Inputs, params: Params) -> Tensor:
    return ops.swiglu(inputs["x"], inputs["up"], options=VLLM.swiglu)


def rotary(inputs: Inputs, params: Params) -> Tensor:
    tensors = (inputs[name] for name in ("x", "key", "cos", "sin"))
    return torch.cat(ops.rotary(*tensors, options=VLLM.rotary), dim=1)


def token_logprob(inputs: Inputs, params: Params) -> Tensor:
    return ops.token_logprob(inputs["x"], inputs["weight"], inputs["targets"]).logprob


def attention(inputs: Inputs, params: Params) -> Tensor:
    """Whole prompts [M, L, …]."""
    x, key, value = (inputs[name] for name in ("x", "key", "value"))
    sequences, length, _, width = x.shape
    y = ops.attention(
        *(tensor.flatten(0, 1) for tensor in (x, key, value)),
        cu_seqlens_q=torch.arange(0, (sequences + 1) * length, length, dtype=torch.int32),
        seqlens_k=torch.full((sequences,), length, dtype=torch.int32),
        scale=width**-0.5,
        options=VLLM_ATTENTION,
    )
    return y.view_as(x)


FORWARDS: Mapping[str, Run] = {
    "linear": linear,
    "bmm": bmm,
    "rms_norm": rms_norm,
    "add_rms_norm": add_rms_norm,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "swiglu": swiglu,
    "rotary": rotary,
    "token_logprob": token_logprob,
    "attention_prefill": attention,
}


def with_implementation(name: str, run: Run) -> Run:
    """With this implementation and no other, backward pass included."""

    def forced(inputs: Inputs, params: Params) -> Tensor:
        with using(name):
            return run(inputs, params)

    return forced
