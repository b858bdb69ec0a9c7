"""Our own implementations as kernels that the checker can run, through `driftscope_kernels.ops`.

Out: Run functions and Kernel objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.check.placements.placement import special_value
from driftscope_kernels.options import TP_SEGMENTS, VLLM, VLLM_ATTENTION
from driftscope_kernels.registry import DTYPES, Kernel, Run, implementations, using
from driftscope_kernels.targets.gradients import gradients

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


def linear(inputs: Inputs, params: Params) -> Tensor:
    return ops.linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def linear_in_segments(inputs: Inputs, params: Params) -> Tensor:
    return ops.linear(inputs["x"], inputs["weight"], tp_segments=TP_SEGMENTS)


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


def sum_(inputs: Inputs, params: Params) -> Tensor:
    return ops.sum(inputs["x"], params["dim"])


def mean(inputs: Inputs, params: Params) -> Tensor:
    return ops.mean(inputs["x"], params["dim"])


def swiglu(inputs: Inputs, params: Params) -> Tensor:
    return ops.swiglu(inputs["x"], inputs["up"], options=VLLM.swiglu)


def rotary(inputs: Inputs, params: Params) -> Tensor:
    tensors = (inputs[name] for name in ("x", "key", "cos", "sin"))
    return torch.cat(ops.rotary(*tensors, options=VLLM.rotary), dim=1)


def token_logprob(inputs: Inputs, params: Params) -> Tensor:
    return ops.token_logprob(inputs["x"], inputs["weight"], inputs["targets"]).logprob


def attention(inputs: Inputs, params: Params) -> Tensor:
    """[M, Q, H, D]: Q last tokens of M sequences; keys and values in pages if a size is given."""
    x, key, value = (inputs[name] for name in ("x", "key", "value"))
    (sequences, queries, _, width), length = x.shape, key.shape[1]
    k, v, table = key.flatten(0, 1), value.flatten(0, 1), None
    if params.get("page_size"):
        k, v, table = _paged(key, value, params)
    y = ops.attention(
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


FORWARDS: Mapping[str, Run] = {
    "linear": linear,
    "bmm": bmm,
    "rms_norm": rms_norm,
    "add_rms_norm": add_rms_norm,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "sum": sum_,
    "mean": mean,
    "swiglu": swiglu,
    "rotary": rotary,
    "token_logprob": token_logprob,
    # One call for both: decode has one query per sequence.
    "attention": attention,
    "attention_prefill": attention,
}


def with_implementation(name: str, run: Run) -> Run:
    """With this implementation and no other, backward pass included."""

    def forced(inputs: Inputs, params: Params) -> Tensor:
        with using(name):
            return run(inputs, params)

    return forced


TARGET = "driftscope"
#: Name of the reference among the implementations.
PLAIN = "reference"
#: The backward pass of attention takes minutes to check in plain Python; tests hold it to the same
#: bits as the compiled one.
TOO_SLOW = {(PLAIN, "attention_prefill.grad")}


def kernels() -> Iterator[Kernel]:
    """Every implementation's ops, tensor-parallel order of linear, and gradients."""
    for name in dict.fromkeys(one.name for one in implementations()):
        for op, run in FORWARDS.items():
            yield _kernel(op, name, run)
        yield _kernel("linear", name, linear_in_segments, order=f"-tp{TP_SEGMENTS}")
        for gradient, run in gradients(FORWARDS, main_grad=True):
            if (name, gradient.op) not in TOO_SLOW:
                yield _kernel(gradient.op, name, run)


def _kernel(op: str, implementation: str, run: Run, *, order: str = "") -> Kernel:
    return Kernel(
        target=TARGET,
        op=op,
        implementation=f"{implementation}{order}",
        run=with_implementation(implementation, run),
        dtypes=frozenset(DTYPES),
        note="through driftscope_kernels.ops",
        # The reference is plain numpy, an element after the other.
        threaded=implementation != PLAIN,
    )
