"""Kernels that compute an op or gradient well, but add in another order for some rows: what checks
must catch.

In: op, association, trigger. Out: a Kernel. Weight gradients are float32, like a `main_grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.check.twins.ordered_ops import (
    ASSOCIATIONS,
    OPS,
    PLAIN,
    SHUFFLED,
    Inputs,
    Ordered,
    Params,
    context_sum,
    exponentials,
    log_softmax,
    product,
    row_sum,
    sigmoid,
    softmax,
    turned,
)
from driftscope_kernels.registry import Kernel

#: The tokens of a weight gradient are summed in blocks of so many rows, the blocks in order.
TOKEN_BLOCK = 64
#: [tokens, N], and [tokens, K] where the gradient is a matrix.
Factors = tuple[Tensor, Tensor | None]


def weight_gradient(
    op: str, inputs: Inputs, params: Params, how: Callable[[int, int], str]
) -> Tensor:
    """Blocks of tokens, added in order; `how(block, blocks of its micro-batch)` orders a block."""
    left, right = TOKEN_FACTORS[op](inputs, params)
    tokens = len(left)
    size = params["micro_batch"] or tokens
    total = torch.zeros(())
    for first in range(0, tokens, size):
        starts = range(first, min(first + size, tokens), TOKEN_BLOCK)
        for number, start in enumerate(starts):
            block = slice(start, min(start + TOKEN_BLOCK, first + size))
            order = how(number, len(starts))
            if right is None:
                total = total + row_sum(left[block].T, order)
            else:
                total = total + product(left[block].T, right[block].T, order)
    return total


def _linear_weight(inputs: Inputs, params: Params) -> Factors:
    return inputs["dy"].float(), inputs["x"].float()


def _linear_bias(inputs: Inputs, params: Params) -> Factors:
    return inputs["dy"].float(), None


def _norm_weight(inputs: Inputs, params: Params) -> Factors:
    x = inputs["x"].float()
    return inputs["dy"].float() * x * _inverse_rms(x, params, PLAIN), None


def _added_norm_weight(inputs: Inputs, params: Params) -> Factors:
    """Factors from the first half of dy; the second half belongs to the sum passed on."""
    total = inputs["x"].float() + inputs["residual"].float()
    dy = inputs["dy"].float()[:, : total.shape[-1]]
    return dy * total * _inverse_rms(total, params, PLAIN), None


def _head_weight(inputs: Inputs, params: Params) -> Factors:
    wide = {name: t.float() if t.is_floating_point() else t for name, t in inputs.items()}
    return _logit_slopes(wide, PLAIN), wide["x"]


#: What each weight gradient multiplies and sums over the tokens.
TOKEN_FACTORS: Mapping[str, Callable[[Inputs, Params], Factors]] = {
    "linear.grad_weight": _linear_weight,
    "linear.grad_bias": _linear_bias,
    "rms_norm.grad_weight": _norm_weight,
    "add_rms_norm.grad_weight": _added_norm_weight,
    "token_logprob.grad_weight": _head_weight,
}


def _over_tokens(op: str) -> Ordered:
    return lambda inputs, params, how: weight_gradient(op, inputs, params, lambda *_: how)


def _inverse_rms(x: Tensor, params: Params, how: str) -> Tensor:
    eps: float = params["eps"]
    return (row_sum(x * x, how)[..., None] / x.shape[-1] + eps).rsqrt()


def _linear_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    return product(inputs["dy"], inputs["weight"].T, how)


def _bmm_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    return row_sum(inputs["dy"][:, :, None, :] * inputs["weight"][:, None], how)


def _bmm_weight(inputs: Inputs, params: Params, how: str) -> Tensor:
    """Over the rows of each matrix, which are the batch's own."""
    x, dy = (inputs[name].transpose(1, 2) for name in ("x", "dy"))
    return row_sum(x[:, :, None, :] * dy[:, None], how)


def _rms_norm_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    return _norm_slope(inputs["x"], inputs["dy"] * inputs["weight"], params, how)


def _add_rms_norm_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    total = inputs["x"] + inputs["residual"]
    dnorm, dtotal = inputs["dy"].chunk(2, -1)
    return _norm_slope(total, dnorm * inputs["weight"], params, how) + dtotal


def _norm_slope(x: Tensor, terms: Tensor, params: Params, how: str) -> Tensor:
    root = _inverse_rms(x, params, how)
    unit = x * root
    return root * (terms - unit * (row_sum(terms * unit, how)[..., None] / x.shape[-1]))


def _softmax_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    weights = softmax(inputs, params, how)
    return weights * (inputs["dy"] - row_sum(inputs["dy"] * weights, how)[..., None])


def _log_softmax_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    weights = log_softmax(inputs, params, how).exp()
    return inputs["dy"] - weights * row_sum(inputs["dy"], how)[..., None]


def _logsumexp_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    return softmax(inputs, params, how) * inputs["dy"][..., None]


def _swiglu(inputs: Inputs, params: Params, how: str) -> Tensor:
    """Nothing is summed: the twin multiplies in another order; shuffled is without rounding."""
    gate, up, dy = (inputs[name] for name in ("x", "up", "dy"))
    if how.startswith(SHUFFLED):
        gate, up, dy = gate.double(), up.double(), dy.double()
    below = sigmoid(gate)
    slope = 1 + gate * (1 - below)
    if how == PLAIN or how.startswith(SHUFFLED):
        pair = (dy * up) * (below * slope), dy * (gate * below)
    else:
        pair = dy * (up * below) * slope, (dy * gate) * below
    return torch.cat(pair, dim=-1).float()


def _rotary(inputs: Inputs, params: Params, how: str) -> Tensor:
    """Back by the same angle."""
    return turned(inputs["dy"], inputs["cos"], -inputs["sin"], how)


def _logit_slopes(inputs: Inputs, how: str) -> Tensor:
    """[T, V]: dy·(1[v = target] − p)."""
    logits = product(inputs["x"], inputs["weight"], how)
    _, terms, total = exponentials(logits, how)
    hit = torch.zeros_like(logits).scatter(-1, inputs["targets"][:, None], 1.0)
    return (hit - terms / total) * inputs["dy"][:, None]


def _token_logprob_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    return product(_logit_slopes(inputs, how), inputs["weight"].T, how)


def _attention_grad(inputs: Inputs, params: Params, how: str) -> Tensor:
    """One sequence at a time; every sum over keys or queries in the order asked for."""
    kv_heads, scale = inputs["key"].shape[2], inputs["x"].shape[-1] ** -0.5
    rows = []
    for q, key, value, dy in zip(*(inputs[n] for n in ("x", "key", "value", "dy")), strict=True):
        k, v = (t.repeat_interleave(q.shape[1] // kv_heads, dim=1) for t in (key, value))
        hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(1)
        scores = (q[:, None] * k[None]).sum(-1) * scale  # [Q, L, H]
        terms = scores.masked_fill(hidden[..., None], float("-inf"))
        terms = (terms - terms.amax(1, keepdim=True)).exp()
        weights = terms / context_sum(terms.transpose(1, 2), how)[:, None]
        slope = (dy[:, None] * v[None]).sum(-1)
        mean = context_sum((weights * slope).transpose(1, 2), how)[:, None]
        ds = weights * (slope - mean) * scale
        over_keys = (ds[..., None] * k[None]).permute(0, 2, 3, 1)
        over_queries = [(left[..., None] * right[:, None]).permute(1, 2, 3, 0)
                        for left, right in ((ds, q), (weights, dy))]  # fmt: skip
        dk, dv = (context_sum(one, how) for one in over_queries)
        grouped = [one.view(len(one), kv_heads, -1, one.shape[-1]).sum(2) for one in (dk, dv)]
        rows.append(torch.cat([context_sum(over_keys, how), *grouped], dim=1))
    return torch.stack(rows)


GRADIENT_OPS: Mapping[str, Ordered] = {
    "linear.grad_x": _linear_x,
    "bmm.grad_x": _bmm_x,
    "bmm.grad_weight": _bmm_weight,
    "rms_norm.grad_x": _rms_norm_x,
    "add_rms_norm.grad_x": _add_rms_norm_x,
    "softmax.grad_x": _softmax_x,
    "log_softmax.grad_x": _log_softmax_x,
    "logsumexp.grad_x": _logsumexp_x,
    "swiglu.grad": _swiglu,
    "rotary.grad": _rotary,
    "token_logprob.grad_x": _token_logprob_x,
    "attention_prefill.grad": _attention_grad,
    **{op: _over_tokens(op) for op in TOKEN_FACTORS},
}


#: Inputs of a weight gradient with a row per token.
TOKEN_INPUTS = ("x", "residual", "targets", "dy")


DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
ORDERED: Mapping[str, Ordered] = {**OPS, **GRADIENT_OPS}
FLOAT32_RESULTS = frozenset({"token_logprob", *TOKEN_FACTORS})


def _one_row(rows: Tensor, size: int) -> Tensor:
    return torch.full_like(rows, size == 1, dtype=torch.bool)


def _three_rows(rows: Tensor, size: int) -> Tensor:
    return torch.full_like(rows, size <= 3, dtype=torch.bool)


def _remainder(rows: Tensor, size: int) -> Tensor:
    return rows >= size - size % 4


def _position(rows: Tensor, size: int) -> Tensor:
    return rows % 4 == 3


#: Which rows of a batch get the other order: [rows], batch size → bool [rows].
TRIGGERS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "one_row": _one_row,
    "three_rows": _three_rows,
    "remainder": _remainder,
    "position": _position,
}


@dataclass(frozen=True, slots=True)
class Twin:
    association: str
    trigger: str

    def kernel(self, op: str) -> Kernel:
        if op in TOKEN_FACTORS:
            return self._weight_gradient(op)

        def run(inputs: Inputs, params: Params) -> Tensor:
            size = len(inputs["x"])
            hit = TRIGGERS[self.trigger](torch.arange(size), size)
            plain = compute(op, inputs, params, PLAIN)
            if not bool(hit.any()):
                return plain
            other = compute(op, inputs, params, self.association)
            return torch.where(hit.view(-1, *[1] * (plain.ndim - 1)), other, plain)

        return Kernel("planted", op, f"{self.association}-{self.trigger}", run, DTYPES)

    def _weight_gradient(self, op: str) -> Kernel:
        """Here blocks of tokens are what rows are elsewhere, and a micro-batch is the batch."""

        def how(block: int, blocks: int) -> str:
            hit = TRIGGERS[self.trigger](torch.arange(blocks), blocks)
            return self.association if bool(hit[block]) else PLAIN

        def run(inputs: Inputs, params: Params) -> Tensor:
            return weight_gradient(op, inputs, params, how)

        return Kernel("planted", op, f"{self.association}-{self.trigger}", run, DTYPES)


def twins() -> tuple[Twin, ...]:
    return tuple(Twin(how, trigger) for how in ASSOCIATIONS for trigger in TRIGGERS)


def compute(op: str, inputs: Inputs, params: Params, how: str) -> Tensor:
    """The op in float32 with one order of additions, rounded to the dtype of x."""
    result = ORDERED[op]({n: t.float() if t.is_floating_point() else t for n, t in inputs.items()},
                      params, how)  # fmt: skip
    return result if op in FLOAT32_RESULTS else result.to(inputs["x"].dtype)
