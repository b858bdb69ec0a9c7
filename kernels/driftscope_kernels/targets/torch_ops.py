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
from driftscope_kernels.targets.gradients import gradients

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


def add_rms_norm(inputs: Inputs, params: Params) -> Tensor:
    total = inputs["x"] + inputs["residual"]
    return torch.cat([rms_norm({**inputs, "x": total}, params), total], dim=-1)


def swiglu(inputs: Inputs, params: Params) -> Tensor:
    return functional.silu(inputs["x"]) * inputs["up"]


def rotary(inputs: Inputs, params: Params) -> Tensor:
    heads = torch.cat([inputs["x"], inputs["key"]], dim=1)
    cos, sin = (inputs[name].repeat(1, 2)[:, None] for name in ("cos", "sin"))
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat([-second, first], -1) * sin


def token_logprob(inputs: Inputs, params: Params) -> Tensor:
    logprobs = functional.linear(inputs["x"], inputs["weight"]).float().log_softmax(-1)
    return logprobs.gather(-1, inputs["targets"][:, None]).flatten()


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


def causal(inputs: Inputs, params: Params) -> Tensor:
    """Whole prompts [M, L, H, D], whose mask torch knows by name."""
    query, key, value = (inputs[name].transpose(1, 2) for name in ("x", "key", "value"))
    result = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True
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
    "add_rms_norm": (add_rms_norm, "torch.nn.functional.rms_norm of a sum"),
    "swiglu": (swiglu, "torch.nn.functional.silu, times up"),
    "rotary": (rotary, "x·cos + rotate_half(x)·sin, as transformers writes it"),
    "token_logprob": (token_logprob, "torch.nn.functional.linear, float, log_softmax, gather"),
    "mean": (mean, "Tensor.mean over a contiguous dimension"),
    "mean_strided": (mean, "Tensor.mean over a strided dimension"),
    "sum": (sum_, "Tensor.sum"),
    "sdpa": (sdpa, "scaled_dot_product_attention, one query per sequence"),
    "sdpa_prefill": (sdpa, "scaled_dot_product_attention, every token a query"),
}
NOTES: Mapping[str, str] = {
    "attention_prefill": "scaled_dot_product_attention, causal",
    **{op: note for op, (_, note) in EAGER.items()},
}
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
    forwards = {op: run for op, (run, _) in EAGER.items()}
    for gradient, run in gradients(forwards | {"attention_prefill": causal}, main_grad=False):
        note = f"autograd of {NOTES[gradient.forward]}"
        if gradient.over_tokens:
            note += ", micro-batches added up in .grad"
        yield Kernel(TARGET, gradient.op, "eager", run, DTYPES, note)
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
