"""torch's own kernels, eager and compiled, as they are called by models. Out: Kernel objects."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from driftscope_kernels.registry import Kernel
from driftscope_kernels.targets import gradients

TARGET = "torch"
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
#: What inductor can build its CPU code with.
COMPILERS = ("g++", "clang++")

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Run = Callable[[Inputs, Params], Tensor]


def linear(inputs: Inputs, params: Params) -> Tensor:
    return functional.linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def mm(inputs: Inputs, params: Params) -> Tensor:
    return torch.mm(inputs["x"], inputs["weight"].t())


def bmm(inputs: Inputs, params: Params) -> Tensor:
    return torch.bmm(inputs["x"], inputs["weight"])


def softmax(inputs: Inputs, params: Params) -> Tensor:
    return torch.softmax(inputs["x"], params["dim"])


def log_softmax(inputs: Inputs, params: Params) -> Tensor:
    return torch.log_softmax(inputs["x"], params["dim"])


def logsumexp(inputs: Inputs, params: Params) -> Tensor:
    return torch.logsumexp(inputs["x"], params["dim"])


def rms_norm(inputs: Inputs, params: Params) -> Tensor:
    width = inputs["x"].shape[-1:]
    return functional.rms_norm(inputs["x"], width, inputs["weight"], params["eps"])


def mean(inputs: Inputs, params: Params) -> Tensor:
    return inputs["x"].mean(params["dim"])


def sum_(inputs: Inputs, params: Params) -> Tensor:
    return inputs["x"].sum(params["dim"])


def sdpa(inputs: Inputs, params: Params) -> Tensor:
    """[M, Q, H, D]; the queries are the last Q tokens of the context."""
    query, key, value = (inputs[name].transpose(1, 2) for name in ("x", "key", "value"))
    queries, length = query.shape[2], key.shape[2]
    visible = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
    mask = None if queries == 1 else visible
    result = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, enable_gqa=True
    )
    return result.transpose(1, 2)


EAGER: Mapping[str, tuple[Run, str]] = {
    "linear": (linear, "torch.nn.functional.linear"),
    "mm": (mm, "torch.mm"),
    "bmm": (bmm, "torch.bmm"),
    "softmax": (softmax, "torch.softmax"),
    "log_softmax": (log_softmax, "torch.log_softmax"),
    "logsumexp": (logsumexp, "torch.logsumexp"),
    "rms_norm": (rms_norm, "torch.nn.functional.rms_norm"),
    "mean": (mean, "Tensor.mean over a contiguous dimension"),
    "mean_strided": (mean, "Tensor.mean over a strided dimension"),
    "sum": (sum_, "Tensor.sum"),
    "sdpa": (sdpa, "scaled_dot_product_attention, one query per sequence"),
    "sdpa_prefill": (sdpa, "scaled_dot_product_attention, every token a query"),
}
#: Those whose gradients are checked, with the weight where there is one.
GRADIENTS: Mapping[str, gradients.Forward] = {
    "linear": lambda x, weight, params: functional.linear(x, _there(weight)),
    "rms_norm": lambda x, weight, params: functional.rms_norm(
        x, x.shape[-1:], weight, params["eps"]
    ),
    "softmax": lambda x, weight, params: torch.softmax(x, params["dim"]),
    "log_softmax": lambda x, weight, params: torch.log_softmax(x, params["dim"]),
}


def _there(weight: Tensor | None) -> Tensor:
    assert weight is not None
    return weight


#: Those for which inductor writes a kernel of its own; a matrix product it hands to the vendor.
COMPILED = ("linear", "softmax", "log_softmax", "rms_norm", "mean", "mean_strided")


def missing_compiler() -> str | None:
    """Why there are no compiled variants; None where there are."""
    if any(map(shutil.which, COMPILERS)):
        return None
    return f"torch.compile needs a C++ compiler ({' or '.join(COMPILERS)})"


def kernels() -> Iterator[Kernel]:
    for op, (run, note) in EAGER.items():
        yield Kernel(TARGET, op, "eager", run, DTYPES, note)
    for op, forward in GRADIENTS.items():
        run, note = gradients.grad_x(forward), f"autograd of {EAGER[op][1]}"
        yield Kernel(TARGET, f"{op}.grad_x", "eager", run, DTYPES, note)
        if op in gradients.WEIGHTED:
            run = gradients.grad_weight(forward, main_grad=False)
            note += ", micro-batches added up in .grad"
            yield Kernel(TARGET, f"{op}.grad_weight", "eager", run, DTYPES, note)
    note = "autograd of scaled_dot_product_attention, causal"
    yield Kernel(TARGET, "attention_prefill.grad", "eager", gradients.sdpa_grad, DTYPES, note)
    if missing_compiler() is None:
        for op in COMPILED:
            run, note = EAGER[op]
            yield Kernel(TARGET, op, "compiled", _compiled(op), DTYPES, f"torch.compile of {note}")


def _compiled(op: str) -> Run:
    def run(inputs: Inputs, params: Params) -> Tensor:
        with torch.no_grad():
            result: Tensor = _compile(op)(dict(inputs), dict(params))
        return result

    return run


@cache
def _compile(op: str) -> Run:
    # dynamic: one kernel for all batch sizes, as a server would have it, not one per size.
    return torch.compile(EAGER[op][0], dynamic=True)
