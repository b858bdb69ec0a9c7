"""What the gradients must be, in float64: by formula where it is short, else by autograd.

In: the inputs of a run. Out: Oracle.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from driftscope_kernels.check.oracles import Inputs, Oracle, Params, linear, turned


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
