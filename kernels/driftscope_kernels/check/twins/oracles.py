"""What each op and gradient must return, in float64, and how far a result may be from it.

An invariant kernel can be wrong: every row the same garbage. Gradients are by formula where it is
short, else by autograd. In: the inputs of a run. Out: Oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


#: Factor on the exact bound terms·eps/2·Σ|terms| of a sum in any order, doubled for the
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


def linear_grad_x(inputs: Inputs, params: Params) -> Oracle:
    dy, weight = inputs["dy"].double(), inputs["weight"].double()
    return Oracle(dy @ weight, dy.abs() @ weight.abs(), dy.shape[-1])


def linear_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    dy, x = inputs["dy"].double(), inputs["x"].double()
    return Oracle(dy.T @ x, dy.abs().T @ x.abs(), len(x), inputs["x"].dtype)


def linear_grad_bias(inputs: Inputs, params: Params) -> Oracle:
    dy = inputs["dy"].double()
    return Oracle(dy.sum(0), dy.abs().sum(0), len(dy), inputs["x"].dtype)


def bmm_grad_x(inputs: Inputs, params: Params) -> Oracle:
    dy, weight = inputs["dy"].double(), inputs["weight"].double().transpose(1, 2)
    return Oracle(dy @ weight, dy.abs() @ weight.abs(), dy.shape[-1])


def bmm_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    x, dy = inputs["x"].double().transpose(1, 2), inputs["dy"].double()
    return Oracle(x @ dy, x.abs() @ dy.abs(), x.shape[-1])


def rms_norm_grad_x(inputs: Inputs, params: Params) -> Oracle:
    x, weight, dy = (inputs[name].double() for name in ("x", "weight", "dy"))
    return _norm_x(x, weight, dy, params)


def add_rms_norm_grad_x(inputs: Inputs, params: Params) -> Oracle:
    total = inputs["x"].double() + inputs["residual"].double()
    dnorm, dtotal = inputs["dy"].double().chunk(2, -1)
    norm = _norm_x(total, inputs["weight"].double(), dnorm, params)
    return Oracle(norm.result + dtotal, norm.scale + dtotal.abs(), norm.terms)


def _norm_x(x: Tensor, weight: Tensor, dy: Tensor, params: Params) -> Oracle:
    result = _gradient(x, dy, lambda x: _unit(x, params["eps"]) * weight)
    root = (x.square().mean(-1, keepdim=True) + params["eps"]).rsqrt()
    terms = (dy * weight).abs()
    spread = (terms * (x * root).abs()).mean(-1, keepdim=True)
    return Oracle(result, root * (terms + (x * root).abs() * spread), x.shape[-1])


def rms_norm_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    return _norm_weight(inputs["x"].double(), inputs["dy"], params)


def add_rms_norm_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    total = inputs["x"].double() + inputs["residual"].double()
    return _norm_weight(total, inputs["dy"].chunk(2, -1)[0], params)


def _norm_weight(x: Tensor, dy: Tensor, params: Params) -> Oracle:
    terms = dy.double() * _unit(x, params["eps"])
    return Oracle(terms.sum(0), terms.abs().sum(0), len(x) + x.shape[-1], dy.dtype)


def softmax_grad_x(inputs: Inputs, params: Params) -> Oracle:
    x, dy = inputs["x"].double(), inputs["dy"].double()
    weights = x.softmax(-1)
    spread = (weights * dy.abs()).sum(-1, keepdim=True)
    result = _gradient(x, dy, lambda x: x.softmax(-1))
    return Oracle(result, weights * (dy.abs() + spread), x.shape[-1])


def log_softmax_grad_x(inputs: Inputs, params: Params) -> Oracle:
    x, dy = inputs["x"].double(), inputs["dy"].double()
    logprobs = x.log_softmax(-1)
    result = _gradient(x, dy, lambda x: x.log_softmax(-1))
    # The exponential of a rounded log-probability is off by the rounding times its size.
    spread = logprobs.exp() * (1 + logprobs.abs()) * dy.abs().sum(-1, keepdim=True)
    return Oracle(result, dy.abs() + spread, x.shape[-1])


def logsumexp_grad_x(inputs: Inputs, params: Params) -> Oracle:
    x, dy = inputs["x"].double(), inputs["dy"].double()[..., None]
    result = x.softmax(-1) * dy
    # The exponential of x less a rounded logsumexp is off by the rounding times its size.
    size = 1 + x.logsumexp(-1, keepdim=True).abs()
    return Oracle(result, result.abs() * size, x.shape[-1])


def swiglu_grad(inputs: Inputs, params: Params) -> Oracle:
    gate, up, dy = (inputs[name].double() for name in ("x", "up", "dy"))
    below = gate.sigmoid()
    slope = below * (1 + gate * (1 - below))
    largest_slope = below * (1 + gate.abs() * (1 - below))
    result = torch.cat([dy * up * slope, dy * gate * below], dim=-1)
    scale = torch.cat([(dy * up).abs() * largest_slope, (dy * gate).abs() * below], dim=-1)
    return Oracle(result, scale, 1)


def rotary_grad(inputs: Inputs, params: Params) -> Oracle:
    return turned(inputs["dy"], inputs["cos"], -inputs["sin"])


def token_logprob_grad_x(inputs: Inputs, params: Params) -> Oracle:
    slope, size = _logit_slopes(inputs)
    weight = inputs["weight"].double()
    terms = sum(weight.shape)
    return Oracle(slope @ weight, size @ weight.abs(), terms, inputs["x"].dtype)


def token_logprob_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    slope, size = _logit_slopes(inputs)
    x = inputs["x"].double()
    terms = sum(x.shape) + len(inputs["weight"])
    return Oracle(slope.T @ x, size.T @ x.abs(), terms, inputs["x"].dtype)


def _logit_slopes(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """[T, V]: dy·(1[v = target] − p), and how much its terms are off by where logits are."""
    logits = linear(inputs, {})
    chance, dy = logits.result.softmax(-1), inputs["dy"].double()[:, None]
    hit = torch.zeros_like(chance).scatter(-1, inputs["targets"][:, None], 1.0)
    off = chance * (1 + logits.scale.amax(-1, keepdim=True))
    return dy * (hit - chance), dy.abs() * (hit + off)


def attention_grad(inputs: Inputs, params: Params) -> Oracle:
    names = ("x", "key", "value", "dy")
    leaves = [inputs[name].double().requires_grad_() for name in names]
    x, key, value, dy = leaves
    group = x.shape[2] // key.shape[2]
    keys, values = (t.repeat_interleave(group, dim=2) for t in (key, value))
    scores = torch.einsum("mqhd,mlhd->mhql", x, keys) * x.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    result = torch.einsum("mhql,mlhd->mqhd", weights, values)
    found = torch.cat(torch.autograd.grad(result, leaves[:3], dy.detach()), dim=2)
    # Rounding the result before it enters the backward pass is the largest error; every gradient
    # is a sum over the context of terms no larger than these.
    largest = [leaf.detach().abs().amax() for leaf in leaves]
    scale = (1 + largest[0] + largest[1]) * (1 + largest[2]) * largest[3]
    terms = x.shape[1] + x.shape[-1]
    return Oracle(found, scale.expand_as(found), terms, inputs["x"].dtype)


def _unit(x: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def _gradient(x: Tensor, dy: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(leaf), leaf, dy)
    return gradient
