"""One packed sequence cut into heads, who sees whom, and the reference in float64.

In: q [tokens, heads · head_dim], k and v [tokens, kv_heads · head_dim]. Out: tensors by head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.exponentials import EXPONENTIALS, ExpName
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.compare_ops.variant import Inputs

#: Who sees whom: positions of queries [n, 1] and of keys [1, m], and the window → bool [n, m].
Mask = Callable[[Tensor, Tensor, int | None], Tensor]
#: Queries of the float64 reference at a time: 512 of them see 8,192 keys of a head in 32 MiB.
REFERENCE_BLOCK: Final = 512


def causal(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


@dataclass(frozen=True, slots=True)
class Attended:
    """One sequence."""

    q: Tensor  # [heads, queries, head_dim]
    k: Tensor  # [kv_heads, keys, head_dim]
    v: Tensor
    visible: Tensor  # bool [queries, keys]
    plain: bool  # a query sees all keys up to its own, and there is one for each key


@dataclass(frozen=True, slots=True)
class Head:
    """Queries of one key head in float32: row = head of the group · queries + query."""

    q: Tensor  # [rows, head_dim]
    k: Tensor  # [keys, head_dim]
    v: Tensor
    visible: Tensor  # bool [rows, keys]


Way = Callable[[Attended, AttentionParameters, torch.dtype], Tensor]


def sequences(inputs: Inputs, p: AttentionParameters, mask: Mask = causal) -> list[Attended]:
    """Views of q, k and v. Raises ValueError where the features are not heads · head_dim."""
    for name, heads in (("q", p.heads), ("k", p.kv_heads), ("v", p.kv_heads)):
        if inputs[name].shape[1] != heads * p.head_dim:
            raise ValueError(
                f"{name} has {inputs[name].shape[1]} features, {heads} heads of {p.head_dim} are "
                f"{heads * p.head_dim}: give the model's own heads, kv_heads and head_dim"
            )
    bounds = inputs.cu_seqlens.tolist()
    found = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        at = torch.arange(end - start)
        visible = mask(at[:, None], at[None], p.window)
        plain = mask is causal and (p.window is None or p.window >= end - start)
        q, k, v = (by_head(inputs[name][start:end], p.head_dim) for name in "qkv")
        found.append(Attended(q, k, v, visible, plain))
    return found


def by_head(x: Tensor, head_dim: int) -> Tensor:
    """[heads, tokens, head_dim] of [tokens, heads · head_dim]: a view."""
    return x.reshape(len(x), -1, head_dim).transpose(0, 1)


def flat(x: Tensor) -> Tensor:
    """The way back."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def run_way(
    way: Way, inputs: Inputs, p: AttentionParameters, dtype: torch.dtype, mask: Mask = causal
) -> tuple[Tensor]:
    """[tokens, heads · head_dim] in `dtype`, sequence after sequence."""
    parts = [flat(way(one, p, dtype)) for one in sequences(inputs, p, mask) if one.q.shape[1]]
    empty = inputs["q"].new_empty((0, p.heads * p.head_dim), dtype=dtype)
    return (torch.cat([empty, *parts]),)


def block(one: Attended, p: AttentionParameters, head: int, start: int, end: int) -> Head:
    group = p.heads // p.kv_heads
    q = one.q[head * group : (head + 1) * group, start:end].float()
    return Head(
        q.reshape(-1, p.head_dim),
        one.k[head].float(),
        one.v[head].float(),
        one.visible[start:end].repeat(group, 1),
    )


def repeated(x: Tensor, p: AttentionParameters) -> Tensor:
    """[heads, keys, head_dim] of [kv_heads, …]: neighbouring heads share one."""
    return x.repeat_interleave(p.heads // p.kv_heads, dim=0)


def softcapped(score: Tensor, softcap: float, exp: ExpName) -> Tensor:
    """softcap · tanh(score / softcap); vLLM makes its tanh of its exponential."""
    if exp != "u20":
        return softcap * torch.tanh(score / softcap)
    raised = EXPONENTIALS[exp](score * torch.tensor(1 / softcap, dtype=torch.float32))
    lowered = 1 / raised
    return (raised - lowered) / (raised + lowered) * softcap


@dataclass(frozen=True, slots=True)
class Exact:
    """A block of queries in float64."""

    start: int
    end: int
    products: Tensor  # [heads, queries, keys] Σ q·k, without the scale
    scores: Tensor  # scaled and capped, −∞ where not visible
    probabilities: Tensor
    output: Tensor  # [heads, queries, head_dim]


def exact_blocks(one: Attended, p: AttentionParameters) -> Iterator[Exact]:
    """All queries of a sequence, REFERENCE_BLOCK at a time. One that sees no key gives 0."""
    k, v = repeated(one.k.double(), p), repeated(one.v.double(), p)
    for start in range(0, one.q.shape[1], REFERENCE_BLOCK):
        end = min(start + REFERENCE_BLOCK, one.q.shape[1])
        products = one.q[:, start:end].double() @ k.transpose(1, 2)
        scores = products * p.scale
        if p.softcap is not None:
            scores = p.softcap * torch.tanh(scores / p.softcap)
        scores = scores.masked_fill(~one.visible[start:end], -torch.inf)
        weights = scores.softmax(dim=2).nan_to_num(0.0)
        yield Exact(start, end, products, scores, weights, weights @ v)
