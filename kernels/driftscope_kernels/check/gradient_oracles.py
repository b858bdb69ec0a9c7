"""What the gradients must be, in float64: by formula where it is short, else by autograd.

In: the inputs of a run. Out: Oracle.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from driftscope_kernels.check.oracles import Inputs, Oracle, Params


def linear_grad_x(inputs: Inputs, params: Params) -> Oracle:
    dy, weight = inputs["dy"].double(), inputs["weight"].double()
    return Oracle(dy @ weight, dy.abs() @ weight.abs(), dy.shape[-1])


def linear_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    dy, x = inputs["dy"].double(), inputs["x"].double()
    return Oracle(dy.T @ x, dy.abs().T @ x.abs(), len(x), inputs["x"].dtype)


def rms_norm_grad_x(inputs: Inputs, params: Params) -> Oracle:
    x, weight, dy = (inputs[name].double() for name in ("x", "weight", "dy"))
    result = _gradient(x, dy, lambda x: _unit(x, params["eps"]) * weight)
    root = (x.square().mean(-1, keepdim=True) + params["eps"]).rsqrt()
    terms = (dy * weight).abs()
    spread = (terms * (x * root).abs()).mean(-1, keepdim=True)
    return Oracle(result, root * (terms + (x * root).abs() * spread), x.shape[-1])


def rms_norm_grad_weight(inputs: Inputs, params: Params) -> Oracle:
    x, dy = inputs["x"].double(), inputs["dy"].double()
    terms = dy * _unit(x, params["eps"])
    return Oracle(terms.sum(0), terms.abs().sum(0), len(x) + x.shape[-1], inputs["x"].dtype)


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
