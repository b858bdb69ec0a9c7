"""Kernels that compute an op well, but add in another order for some rows: what checks must catch.

In: op, association, trigger. Out: a Kernel. The plain order does not depend on the batch: matrix
products are made one row at a time, everything else row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.check.placement import thread_count
from driftscope_kernels.registry import Kernel

PLAIN = "plain"
#: The same terms in another order: from behind, in 2, 3 or 5 parts (8 would be
#: the blocks of 192 in which MKL itself cuts K = 1,536), even and odd positions apart.
SHUFFLED = "shuffled_"  # and a seed
CUT = "cut_"  # and the place of the one cut
ASSOCIATIONS = ("reverse", "split_2", "split_3", "split_5", "interleaved")
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})

#: Of weight gradients, which are kept in float32, as a `main_grad` is.
WEIGHT_GRADIENTS = ("linear.grad_weight", "rms_norm.grad_weight")
FLOAT32_RESULTS = ("token_logprob", *WEIGHT_GRADIENTS)
#: The tokens of a weight gradient are summed in blocks of so many rows, the blocks in order.
TOKEN_BLOCK = 64
#: Positions of a context that are summed at a time.
KEY_TILE = 32

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


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
        if op in WEIGHT_GRADIENTS:
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
    result = _OPS[op]({n: t.float() if t.is_floating_point() else t for n, t in inputs.items()},
                      params, how)  # fmt: skip
    return result if op in FLOAT32_RESULTS else result.to(inputs["x"].dtype)


def weight_gradient(
    op: str, inputs: Inputs, params: Params, how: Callable[[int, int], str]
) -> Tensor:
    """Blocks of tokens, added in order; `how(block, blocks of its micro-batch)` orders a block."""
    factors = _token_factors(op, inputs, params)
    tokens = len(factors[0])
    size = params["micro_batch"] or tokens
    total = torch.zeros(())
    for first in range(0, tokens, size):
        starts = range(first, min(first + size, tokens), TOKEN_BLOCK)
        for number, start in enumerate(starts):
            end = min(start + TOKEN_BLOCK, first + size)
            dy, other = (factor[start:end] for factor in factors)
            total = total + _block(op, dy, other, how(number, len(starts)))
    return total


def _token_factors(op: str, inputs: Inputs, params: Params) -> tuple[Tensor, Tensor]:
    """[tokens, …]: dy, and what it is multiplied with."""
    x, dy = inputs["x"].float(), inputs["dy"].float()
    if op == "linear.grad_weight":
        return dy, x
    eps: float = params["eps"]
    return dy, x * (row_sum(x * x, PLAIN)[..., None] / x.shape[-1] + eps).rsqrt()


def _block(op: str, dy: Tensor, other: Tensor, how: str) -> Tensor:
    if op == "linear.grad_weight":
        return product(dy.T, other.T, how)
    return row_sum((dy * other).T, how)


def row_sum(terms: Tensor, how: str) -> Tensor:
    """Along the last dimension; torch's own sum of a contiguous row does not see other rows."""
    parts = [part.contiguous().sum(-1) for part in _parts(terms, how)]
    return _in_order(parts)


def product(x: Tensor, weight: Tensor, how: str) -> Tensor:
    """x [M, K] · weight [N, K]ᵀ."""
    parts = zip(_parts(x, how), _parts(weight, how), strict=True)
    return _in_order([_row_by_row(left, right) for left, right in parts])


def _parts(terms: Tensor, how: str) -> list[Tensor]:
    if how == PLAIN:
        return [terms]
    if how == "reverse":
        return [terms.flip(-1)]
    if how == "interleaved":
        return [terms[..., ::2], terms[..., 1::2]]
    if how.startswith(SHUFFLED):
        generator = torch.Generator().manual_seed(int(how.removeprefix(SHUFFLED)))
        return [terms[..., torch.randperm(terms.shape[-1], generator=generator)]]
    if how.startswith(CUT):
        return list(terms.tensor_split([int(how.removeprefix(CUT))], dim=-1))
    return list(terms.tensor_split(int(how.removeprefix("split_")), dim=-1))


def _in_order(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _row_by_row(x: Tensor, weight: Tensor) -> Tensor:
    """Copies: where a row or the weight begins in memory chooses a path as well."""
    turned = weight.clone(memory_format=torch.contiguous_format).T
    # With several threads the vendor's GEMM splits even one row.
    with thread_count(1):
        return torch.cat([row.clone()[None] @ turned for row in x])


def _linear(inputs: Inputs, params: Params, how: str) -> Tensor:
    return product(inputs["x"], inputs["weight"], how)


def _bmm(inputs: Inputs, params: Params, how: str) -> Tensor:
    terms = inputs["x"][:, :, None, :] * inputs["weight"].transpose(1, 2)[:, None]
    return row_sum(terms, how)


def _sum(inputs: Inputs, params: Params, how: str) -> Tensor:
    return row_sum(inputs["x"], how)


def _mean(inputs: Inputs, params: Params, how: str) -> Tensor:
    return row_sum(inputs["x"], how) / inputs["x"].shape[-1]


def _exponentials(x: Tensor, how: str) -> tuple[Tensor, Tensor, Tensor]:
    shifted = x - x.amax(-1, keepdim=True)
    terms = shifted.exp()
    return shifted, terms, row_sum(terms, how)[..., None]


def _softmax(inputs: Inputs, params: Params, how: str) -> Tensor:
    _, terms, total = _exponentials(inputs["x"], how)
    return terms / total


def _log_softmax(inputs: Inputs, params: Params, how: str) -> Tensor:
    shifted, _, total = _exponentials(inputs["x"], how)
    return shifted - total.log()


def _logsumexp(inputs: Inputs, params: Params, how: str) -> Tensor:
    _, _, total = _exponentials(inputs["x"], how)
    return total[..., 0].log() + inputs["x"].amax(-1)


def _normed(x: Tensor, inputs: Inputs, params: Params, how: str) -> Tensor:
    mean = row_sum(x * x, how)[..., None] / x.shape[-1]
    eps: float = params["eps"]
    return x * (mean + eps).rsqrt() * inputs["weight"]


def _rms_norm(inputs: Inputs, params: Params, how: str) -> Tensor:
    return _normed(inputs["x"], inputs, params, how)


def _add_rms_norm(inputs: Inputs, params: Params, how: str) -> Tensor:
    total = inputs["x"] + inputs["residual"]
    return torch.cat([_normed(total, inputs, params, how), total], dim=-1)


def _swiglu(inputs: Inputs, params: Params, how: str) -> Tensor:
    """Nothing is summed: the twin multiplies in another order; shuffled is without rounding."""
    gate, up = inputs["x"], inputs["up"]
    if how.startswith(SHUFFLED):
        gate, up = gate.double(), up.double()
        return (gate * gate.sigmoid() * up).float()
    return gate * gate.sigmoid() * up if how == PLAIN else gate * up * gate.sigmoid()


def _rotary(inputs: Inputs, params: Params, how: str) -> Tensor:
    """Two terms: the twin rounds the products as a model in its own dtype does, and in float32,
    where that changes nothing, keeps one exact; shuffled keeps both exact.
    """
    heads = torch.cat([inputs["x"], inputs["key"]], dim=1)
    cos, sin = (inputs[name].repeat(1, 2)[:, None] for name in ("cos", "sin"))
    first, second = heads.chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    if how == PLAIN:
        return heads * cos + turned * sin
    if how.startswith(SHUFFLED):
        return (heads.double() * cos + turned.double() * sin).float()
    narrow = _narrowest(heads)
    if narrow is None:
        return ((heads * cos).double() + turned.double() * sin).float()
    return (heads * cos).to(narrow).float() + (turned * sin).to(narrow).float()


def _narrowest(values: Tensor) -> torch.dtype | None:
    """The low-precision dtype that the values were widened from, if any."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(values.to(dtype).float(), values):
            return dtype
    return None


def _token_logprob(inputs: Inputs, params: Params, how: str) -> Tensor:
    logits = product(inputs["x"], inputs["weight"], how)
    chosen = logits.gather(-1, inputs["targets"][:, None])
    _, _, total = _exponentials(logits, PLAIN)
    return (chosen - logits.amax(-1, keepdim=True) - total.log()).flatten()


def _context_sum(terms: Tensor, how: str) -> Tensor:
    """Plain: in tiles from position 0, so that masked positions behind a query change nothing."""
    if how != PLAIN:
        return row_sum(terms, how)
    behind = -terms.shape[-1] % KEY_TILE
    tiles = torch.nn.functional.pad(terms, (0, behind)).reshape(*terms.shape[:-1], -1, KEY_TILE)
    return _in_order(list(tiles.contiguous().sum(-1).unbind(-1)))


def _attention(inputs: Inputs, params: Params, how: str) -> Tensor:
    x, key, value = inputs["x"], inputs["key"], inputs["value"]
    queries, length = x.shape[1], key.shape[1]
    key, value = (t.repeat_interleave(x.shape[2] // t.shape[2], dim=2) for t in (key, value))
    visible = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
    rows = []
    # One sequence and one query at a time: the terms of P·V are kept apart until they are added.
    for query, keys, values in zip(x, key, value, strict=True):
        scores = (query[:, None] * keys[None]).sum(-1) * x.shape[-1] ** -0.5  # [Q, L, H]
        weights = scores.masked_fill(~visible[..., None], float("-inf"))
        weights = (weights - weights.amax(1, keepdim=True)).exp()
        total = _context_sum(weights.transpose(1, 2), how)[..., None]
        terms = ((weight[..., None] * values).permute(1, 2, 0) for weight in weights)
        sums = [_context_sum(one, how) for one in terms]
        rows.append(torch.stack(sums) / total)
    return torch.stack(rows)


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
        weights = terms / _context_sum(terms.transpose(1, 2), how)[:, None]
        slope = (dy[:, None] * v[None]).sum(-1)
        mean = _context_sum((weights * slope).transpose(1, 2), how)[:, None]
        ds = weights * (slope - mean) * scale
        over_keys = (ds[..., None] * k[None]).permute(0, 2, 3, 1)
        over_queries = [(left[..., None] * right[:, None]).permute(1, 2, 3, 0)
                        for left, right in ((ds, q), (weights, dy))]  # fmt: skip
        dk, dv = (_context_sum(one, how) for one in over_queries)
        grouped = [one.view(len(one), kv_heads, -1, one.shape[-1]).sum(2) for one in (dk, dv)]
        rows.append(torch.cat([_context_sum(over_keys, how), *grouped], dim=1))
    return torch.stack(rows)


def _linear_grad_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    return product(inputs["dy"], inputs["weight"].T, how)


def _linear_grad_weight(inputs: Inputs, params: Params, how: str) -> Tensor:
    return weight_gradient("linear.grad_weight", inputs, params, lambda *_: how)


def _rms_norm_grad_weight(inputs: Inputs, params: Params, how: str) -> Tensor:
    return weight_gradient("rms_norm.grad_weight", inputs, params, lambda *_: how)


def _rms_norm_grad_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    x, k = inputs["x"], inputs["x"].shape[-1]
    eps: float = params["eps"]
    root = (row_sum(x * x, how)[..., None] / k + eps).rsqrt()
    unit, terms = x * root, inputs["dy"] * inputs["weight"]
    return root * (terms - unit * (row_sum(terms * unit, how)[..., None] / k))


def _softmax_grad_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    weights = _softmax(inputs, params, how)
    return weights * (inputs["dy"] - row_sum(inputs["dy"] * weights, how)[..., None])


def _log_softmax_grad_x(inputs: Inputs, params: Params, how: str) -> Tensor:
    weights = _log_softmax(inputs, params, how).exp()
    return inputs["dy"] - weights * row_sum(inputs["dy"], how)[..., None]


_OPS: Mapping[str, Callable[[Inputs, Params, str], Tensor]] = {
    "linear": _linear,
    "mm": _linear,
    "bmm": _bmm,
    "sum": _sum,
    "mean": _mean,
    "mean_strided": _mean,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "rms_norm": _rms_norm,
    "add_rms_norm": _add_rms_norm,
    "swiglu": _swiglu,
    "rotary": _rotary,
    "token_logprob": _token_logprob,
    "attention": _attention,
    "attention_prefill": _attention,
    "sdpa": _attention,
    "sdpa_prefill": _attention,
    "attention_prefill.grad": _attention_grad,
    "linear.grad_x": _linear_grad_x,
    "linear.grad_weight": _linear_grad_weight,
    "rms_norm.grad_x": _rms_norm_grad_x,
    "rms_norm.grad_weight": _rms_norm_grad_weight,
    "softmax.grad_x": _softmax_grad_x,
    "log_softmax.grad_x": _log_softmax_grad_x,
}
