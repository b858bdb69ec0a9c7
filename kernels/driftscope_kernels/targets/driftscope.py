"""Our own implementations as kernels that the checker can run. Out: Kernel objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.options import VLLM
from driftscope_kernels.reference.linear import TP_SEGMENTS
from driftscope_kernels.registry import Implementation, Kernel, Run, implementations
from driftscope_kernels.targets import gradients

TARGET = "driftscope"

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Function = Callable[..., Any]


def kernels() -> Iterator[Kernel]:
    """One per implementation of a forward op, the tensor-parallel order of linear, gradients."""
    for one in implementations():
        if one.op in ADAPTERS:
            yield _kernel(one, one.name, ADAPTERS[one.op](one.function))
        if one.op == "linear":
            name = f"{one.name}-tp{TP_SEGMENTS}"
            yield _kernel(one, name, _linear(one.function, tp_segments=TP_SEGMENTS))
            for op, run in gradients.ours(one.name):
                note = "through driftscope_kernels.ops"
                yield Kernel(TARGET, op, one.name, run, one.dtypes, note)


def _kernel(one: Implementation, name: str, run: Run) -> Kernel:
    return Kernel(TARGET, one.op, name, run, one.dtypes)


def _linear(function: Function, tp_segments: int = 1) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        y: Tensor = function(
            inputs["x"], inputs["weight"], inputs.get("bias"), tp_segments=tp_segments
        )
        return y

    return run


def _bmm(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        y: Tensor = function(inputs["x"], inputs["weight"])
        return y

    return run


def _rms_norm(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        y: Tensor = function(inputs["x"], inputs["weight"], params["eps"], options=VLLM.norm)
        return y

    return run


def _add_rms_norm(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        tensors = (inputs["x"], inputs["residual"], inputs["weight"])
        return torch.cat(function(*tensors, params["eps"], options=VLLM.norm), dim=-1)

    return run


def _softmax_family(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        y: Tensor = function(inputs["x"], params["dim"])
        return y

    return run


def _reduction(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        x = inputs["x"]
        y: Tensor = function(x, (params["dim"] % x.dim(),))
        return y

    return run


def _swiglu(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        y: Tensor = function(inputs["x"], inputs["up"], options=VLLM.swiglu)
        return y

    return run


def _rotary(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        tables = (inputs["cos"], inputs["sin"])
        turned = [function(inputs[n], *tables, options=VLLM.rotary) for n in ("x", "key")]
        return torch.cat(turned, dim=1)

    return run


def _token_logprob(function: Function) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        y: Tensor = function(
            inputs["x"],
            inputs["weight"],
            inputs["targets"],
            temperature=1.0,
            top_k=0,
            options=VLLM.logprob,
        ).logprob
        return y

    return run


ADAPTERS: dict[str, Callable[[Function], Run]] = {
    "linear": _linear,
    "bmm": _bmm,
    "rms_norm": _rms_norm,
    "add_rms_norm": _add_rms_norm,
    "softmax": _softmax_family,
    "log_softmax": _softmax_family,
    "logsumexp": _softmax_family,
    "sum": _reduction,
    "mean": _reduction,
    "swiglu": _swiglu,
    "rotary": _rotary,
    "token_logprob": _token_logprob,
}
