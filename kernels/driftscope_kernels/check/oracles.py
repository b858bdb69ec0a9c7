"""What each op must return, in float64, and how far a result may be from it.

An invariant kernel can be wrong: every row the same garbage. In: the inputs of a run. Out: Oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Oracle:
    result: Tensor  # float64
    scale: Tensor  # float64, broadcasts to result: sum of absolute terms, the unit of the error
    terms: int  # additions behind one element
    rounded_to: torch.dtype | None = None  # on the way, where that is narrower than the result


#: Of the exact bound terms·eps/2·Σ|terms| of a sum in any order, and as much again for the
#: elementary functions; a wrong bit pattern misses it by orders of magnitude.
SLACK = 4.0


def is_close(values: Tensor, oracle: Oracle) -> Tensor:
    """bool, as values: within rounding of a float32 accumulator and of the result's dtype."""
    accumulated = oracle.terms * torch.finfo(torch.float32).eps
    rounded = max(torch.finfo(d).eps for d in (values.dtype, oracle.rounded_to or values.dtype))
    bound = SLACK * (accumulated + rounded) * oracle.scale + torch.finfo(values.dtype).tiny
    return (values.double() - oracle.result).abs() <= bound


def linear(inputs: Inputs, params: Params) -> Oracle:
    x, weight = inputs["x"].double(), inputs["weight"].double()
    return Oracle(x @ weight.T, x.abs() @ weight.abs().T, x.shape[-1])


def bmm(inputs: Inputs, params: Params) -> Oracle:
    x, weight = inputs["x"].double(), inputs["weight"].double()
    return Oracle(x @ weight, x.abs() @ weight.abs(), x.shape[-1])


def sum_(inputs: Inputs, params: Params) -> Oracle:
    x = inputs["x"].double()
    return Oracle(x.sum(-1), x.abs().sum(-1), x.shape[-1])


def mean(inputs: Inputs, params: Params) -> Oracle:
    x = inputs["x"].double()
    return Oracle(x.mean(-1), x.abs().mean(-1), x.shape[-1])


def softmax(inputs: Inputs, params: Params) -> Oracle:
    result = inputs["x"].double().softmax(-1)
    return Oracle(result, result, result.shape[-1])


def log_softmax(inputs: Inputs, params: Params) -> Oracle:
    x = inputs["x"].double()
    return Oracle(x.log_softmax(-1), x.abs().amax(-1, keepdim=True) + 1, x.shape[-1])


def logsumexp(inputs: Inputs, params: Params) -> Oracle:
    x = inputs["x"].double()
    return Oracle(x.logsumexp(-1), x.abs().amax(-1) + 1, x.shape[-1])


def rms_norm(inputs: Inputs, params: Params) -> Oracle:
    result = _normed(inputs["x"].double(), inputs["weight"], params["eps"])
    return Oracle(result, result.abs(), result.shape[-1])


def add_rms_norm(inputs: Inputs, params: Params) -> Oracle:
    total = inputs["x"].double() + inputs["residual"].double()
    result = torch.cat([_normed(total, inputs["weight"], params["eps"]), total], dim=-1)
    return Oracle(result, result.abs(), total.shape[-1])


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()


def swiglu(inputs: Inputs, params: Params) -> Oracle:
    gate, up = inputs["x"].double(), inputs["up"].double()
    result = torch.nn.functional.silu(gate) * up
    return Oracle(result, result.abs(), 1)


def rotary(inputs: Inputs, params: Params) -> Oracle:
    heads = torch.cat([inputs["x"], inputs["key"]], dim=1)
    return turned(heads, inputs["cos"], inputs["sin"])


def turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Oracle:
    heads = heads.double()
    cos, sin = (table.double().repeat(1, 2)[:, None] for table in (cos, sin))
    first, second = heads.chunk(2, -1)
    result = heads * cos + torch.cat([-second, first], -1) * sin
    scale = heads.abs() * cos.abs() + torch.cat([second, first], -1).abs() * sin.abs()
    return Oracle(result, scale, 1)


def token_logprob(inputs: Inputs, params: Params) -> Oracle:
    logits = linear(inputs, params)
    result = logits.result.log_softmax(-1).gather(-1, inputs["targets"][:, None]).flatten()
    return Oracle(result, logits.scale.amax(-1) + 1, inputs["x"].shape[-1], inputs["x"].dtype)


def attention(inputs: Inputs, params: Params) -> Oracle:
    """Grouped-query attention of the last query tokens, causal, aligned to the end."""
    x, key, value = (inputs[name].double() for name in ("x", "key", "value"))
    queries, length = x.shape[1], key.shape[1]
    group = x.shape[2] // key.shape[2]
    key, value = (t.repeat_interleave(group, dim=2) for t in (key, value))
    scores = torch.einsum("mqhd,mlhd->mhql", x, key) * x.shape[-1] ** -0.5
    visible = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    result = torch.einsum("mhql,mlhd->mqhd", weights, value)
    scale = torch.einsum("mhql,mlhd->mqhd", weights, value.abs())
    # Errors of the scores enter through exp: its argument is a sum of the head's width.
    return Oracle(result, scale * (1 + scores.abs().amax()), length + x.shape[-1])
