"""Our own implementations as kernels that the checker can run. Out: Kernel objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.attention_options import VLLM_ATTENTION
from driftscope_kernels.check.placement import special_value
from driftscope_kernels.options import VLLM
from driftscope_kernels.reference.arrays import DTYPES
from driftscope_kernels.reference.linear import TP_SEGMENTS
from driftscope_kernels.registry import Implementation, Kernel, Run, implementations
from driftscope_kernels.targets.differentiable import FORWARDS, with_implementation
from driftscope_kernels.targets.gradients import gradients

TARGET = "driftscope"
#: Name of the reference among the implementations.
PLAIN = "reference"
#: The backward pass of attention takes minutes to check in plain Python; tests hold it to the same
#: bits as the compiled one.
TOO_SLOW = {(PLAIN, "attention_prefill.grad")}

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Function = Callable[..., Any]


def kernels() -> Iterator[Kernel]:
    """One per implementation of a forward op, the tensor-parallel order of linear, gradients."""
    known = implementations()
    for one in known:
        if one.op in ADAPTERS:
            yield _kernel(one, one.name, ADAPTERS[one.op](one.function))
        if one.op == "attention":
            run = _attention(one.function)
            yield Kernel(
                TARGET, "attention_prefill", one.name, run, one.dtypes, threaded=one.name != PLAIN
            )
        if one.op == "linear":
            name = f"{one.name}-tp{TP_SEGMENTS}"
            yield _kernel(one, name, _linear(one.function, tp_segments=TP_SEGMENTS))
    for name in dict.fromkeys(one.name for one in known):
        yield from _gradients(name)


def _gradients(implementation: str) -> Iterator[Kernel]:
    """Through `ops`, as a trainer calls them."""
    for gradient, run in gradients(FORWARDS, main_grad=True):
        if (implementation, gradient.op) not in TOO_SLOW:
            yield Kernel(
                *(TARGET, gradient.op, implementation, with_implementation(implementation, run)),
                *(frozenset(DTYPES), "through driftscope_kernels.ops"),
                threaded=implementation != PLAIN,
            )


def _kernel(one: Implementation, name: str, run: Run) -> Kernel:
    # The reference is plain numpy, an element after the other.
    return Kernel(TARGET, one.op, name, run, one.dtypes, threaded=one.name != PLAIN)


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


def _attention(function: Function) -> Run:
    """[M, Q, H, D]: Q last tokens of M sequences; keys and values in pages if a size is given."""

    def run(inputs: Inputs, params: Params) -> Tensor:
        x, key, value = inputs["x"], inputs["key"], inputs["value"]
        (sequences, queries, _, width), length = x.shape, key.shape[1]
        k, v, table = key.flatten(0, 1), value.flatten(0, 1), None
        if params.get("page_size"):
            k, v, table = _paged(key, value, params)
        y: Tensor = function(
            x.flatten(0, 1),
            k,
            v,
            cu_seqlens_q=torch.arange(0, (sequences + 1) * queries, queries, dtype=torch.int32),
            seqlens_k=torch.full((sequences,), length, dtype=torch.int32),
            block_table=table,
            scale=width**-0.5,
            options=VLLM_ATTENTION,
        )
        return y.view(x.shape)

    return run


def _paged(key: Tensor, value: Tensor, params: Params) -> tuple[Tensor, Tensor, Tensor]:
    """Pages [pages, size, KH, D] of both and the table [M, pages]; `page_order` seeds where they
    lie, `padding` fills the slots behind the context.
    """
    size, seed, padding = params["page_size"], params["page_order"], params.get("padding")
    rest = special_value(padding, key.dtype) if padding else 0.0
    sequences, length = key.shape[:2]
    pages = -(-length // size)
    order = torch.arange(sequences * pages)
    if seed:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(sequences * pages, generator=generator)
    caches = []
    for tensor in (key, value):
        padded = tensor.new_full((sequences, pages * size, *tensor.shape[2:]), rest)
        padded[:, :length] = tensor
        cache = torch.empty_like(padded).view(sequences * pages, size, *tensor.shape[2:])
        cache[order] = padded.view(cache.shape)
        caches.append(cache)
    return caches[0], caches[1], order.view(sequences, pages).to(torch.int32)


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
    "attention": _attention,
}
