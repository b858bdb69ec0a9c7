"""Sums of the same terms in one order or another, and the forward ops built from them.

In: terms or inputs, the name of an order. Out: the sum or result. The plain order does not depend
on the batch: matrix products are made one row at a time, everything else row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.check.placements.placement import thread_count

PLAIN = "plain"
#: The same terms in another order: from behind, in 2, 3 or 5 parts (8 would be
#: the blocks of 192 in which MKL itself cuts K = 1,536), even and odd positions apart.
SHUFFLED = "shuffled_"  # and a seed
CUT = "cut_"  # and the index of the one cut
ASSOCIATIONS = ("reverse", "split_2", "split_3", "split_5", "interleaved")
#: Positions of a context that are summed at a time.
KEY_TILE = 32


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


def context_sum(terms: Tensor, how: str) -> Tensor:
    """Plain: in tiles from position 0, so that masked positions behind a query change nothing."""
    if how != PLAIN:
        return row_sum(terms, how)
    behind = -terms.shape[-1] % KEY_TILE
    tiles = torch.nn.functional.pad(terms, (0, behind)).reshape(*terms.shape[:-1], -1, KEY_TILE)
    return _in_order(list(tiles.contiguous().sum(-1).unbind(-1)))


Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
#: Inputs, params, the name of an order.
Ordered = Callable[[Inputs, Params, str], Tensor]


def _linear(inputs: Inputs, params: Params, how: str) -> Tensor:
    return product(inputs["x"], inputs["weight"], how)


def _bmm(inputs: Inputs, params: Params, how: str) -> Tensor:
    terms = inputs["x"][:, :, None, :] * inputs["weight"].transpose(1, 2)[:, None]
    return row_sum(terms, how)


def _sum(inputs: Inputs, params: Params, how: str) -> Tensor:
    return row_sum(inputs["x"], how)


def _mean(inputs: Inputs, params: Params, how: str) -> Tensor:
    return row_sum(inputs["x"], how) / inputs["x"].shape[-1]


def exponentials(x: Tensor, how: str) -> tuple[Tensor, Tensor, Tensor]:
    shifted = x - x.amax(-1, keepdim=True)
    terms = shifted.exp()
    return shifted, terms, row_sum(terms, how)[..., None]


def softmax(inputs: Inputs, params: Params, how: str) -> Tensor:
    _, terms, total = exponentials(inputs["x"], how)
    return terms / total


def log_softmax(inputs: Inputs, params: Params, how: str) -> Tensor:
    shifted, _, total = exponentials(inputs["x"], how)
    return shifted - total.log()


def _logsumexp(inputs: Inputs, params: Params, how: str) -> Tensor:
    _, _, total = exponentials(inputs["x"], how)
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
        return (gate * sigmoid(gate) * up).float()
    return gate * sigmoid(gate) * up if how == PLAIN else gate * up * sigmoid(gate)


def sigmoid(x: Tensor) -> Tensor:
    """torch's own computes the end of a float32 tensor by another exponential."""
    return 1 / (1 + (-x).exp())


def _rotary(inputs: Inputs, params: Params, how: str) -> Tensor:
    heads = torch.cat([inputs["x"], inputs["key"]], dim=1)
    return turned(heads, inputs["cos"], inputs["sin"], how)


def turned(heads: Tensor, cos: Tensor, sin: Tensor, how: str) -> Tensor:
    """Two terms: the twin rounds the products as a model in its own dtype does, and in float32,
    where that changes nothing, keeps one exact; shuffled keeps both exact.
    """
    cos, sin = (table.repeat(1, 2)[:, None] for table in (cos, sin))
    first, second = heads.chunk(2, -1)
    across = torch.cat([-second, first], -1)
    if how == PLAIN:
        return heads * cos + across * sin
    if how.startswith(SHUFFLED):
        return (heads.double() * cos + across.double() * sin).float()
    narrow = _narrowest(heads)
    if narrow is None:
        return ((heads * cos).double() + across.double() * sin).float()
    return (heads * cos).to(narrow).float() + (across * sin).to(narrow).float()


def _narrowest(values: Tensor) -> torch.dtype | None:
    """The low-precision dtype that the values were widened from, if any."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(values.to(dtype).float(), values):
            return dtype
    return None


def _token_logprob(inputs: Inputs, params: Params, how: str) -> Tensor:
    logits = product(inputs["x"], inputs["weight"], how)
    chosen = logits.gather(-1, inputs["targets"][:, None])
    _, _, total = exponentials(logits, PLAIN)
    return (chosen - logits.amax(-1, keepdim=True) - total.log()).flatten()


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
        total = context_sum(weights.transpose(1, 2), how)[..., None]
        terms = ((weight[..., None] * values).permute(1, 2, 0) for weight in weights)
        sums = [context_sum(one, how) for one in terms]
        rows.append(torch.stack(sums) / total)
    return torch.stack(rows)


OPS: Mapping[str, Ordered] = {
    "linear": _linear,
    "mm": _linear,
    "bmm": _bmm,
    "sum": _sum,
    "mean": _mean,
    "mean_strided": _mean,
    "softmax": softmax,
    "log_softmax": log_softmax,
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
}
