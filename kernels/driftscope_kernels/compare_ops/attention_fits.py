"""Numbers of a faulty attention solved for from what a side gave: window, scale, cap, head mapping.

In: inputs, parameters, one side's output. Out: faults with the numbers that fit best, if they fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.attention_faults import (
    heads_fault,
    scale_fault,
    softcap_fault,
    window_fault,
)
from driftscope_kernels.compare_ops.attention_heads import (
    Attended,
    Exact,
    by_head,
    exact_blocks,
    sequences,
)
from driftscope_kernels.compare_ops.attention_ways import AttentionVariant
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.compare_ops.variant import Inputs

#: Tokens of the longest sequence that are looked at: a solve runs the attention some 60 times.
FITTED_TOKENS: Final = 256
#: A number counts as found where it lowers the squared error to this share at most. Rounding alone
#: lowers it by some percent when one number is free; a fault that is the only one, a thousandfold.
FOUND: Final = 0.1
#: Scales and caps that are tried before the best is refined: from 1/64 of the given scale to 64
#: times it, and from 1 to 1,000, in steps that the error's valley is wider than.
SCALE_OCTAVES: Final = 6
STEPS: Final = 24
CAPS: Final = (1.0, 1000.0)
REFINEMENTS: Final = 40  # of a golden section: the valley shrinks by 0.618 each time, to 1e-8
GOLDEN: Final = (math.sqrt(5) - 1) / 2
#: A round number stands for the solved one unless it leaves so many times its squared error:
#: what rounding leaves moves the minimum by less.
AS_GOOD: Final = 1.5


@dataclass(frozen=True, slots=True)
class Seen:
    """One sequence, and what a side made of it."""

    one: Attended
    out: Tensor  # float64 [heads, queries, head_dim]
    p: AttentionParameters

    def error(self, p: AttentionParameters) -> float:
        exact = torch.cat([block.output for block in exact_blocks(self.one, p)], dim=1)
        return self.distance(exact)

    def distance(self, exact: Tensor) -> float:
        return float((exact - self.out).nan_to_num(math.inf).square().sum())


def fits(inputs: Inputs, p: AttentionParameters, out: Tensor) -> Sequence[AttentionVariant]:
    lengths = inputs.cu_seqlens.diff()
    if not len(lengths) or int(lengths.max()) == 0:
        return ()
    longest = int(lengths.argmax())
    start = int(inputs.cu_seqlens[longest])
    tokens = min(int(lengths[longest]), FITTED_TOKENS)
    rows = slice(start, start + tokens)
    part = replace(
        inputs,
        tensors={name: x[rows] for name, x in inputs.tensors.items()},
        positions=inputs.positions[rows],
        tokens=inputs.tokens[rows],
        cu_seqlens=torch.tensor([0, tokens]),
    )
    seen = Seen(sequences(part, p)[0], by_head(out[rows].double(), p.head_dim), p)
    before = seen.error(p)
    if before == 0.0:
        return ()
    return [*_scale(seen, before), *_softcap(seen, before), *_window(seen, before),
            *_mapping(seen, before)]  # fmt: skip


def _scale(seen: Seen, before: float) -> list[AttentionVariant]:
    p = seen.p

    def error(octaves: float) -> float:
        return seen.error(replace(p, scale=p.scale * 2.0**octaves))

    octaves, least = _least(error, -SCALE_OCTAVES, SCALE_OCTAVES)
    if least > FOUND * before:
        return []
    solved = p.scale * 2.0**octaves
    # 1 / √n for a whole n, as all scales in use are.
    whole = max(round(solved**-2), 1) ** -0.5
    scale = whole if seen.error(replace(p, scale=whole)) <= AS_GOOD * least else solved
    says = f"the scale is {scale:.6g}, not {p.scale:.6g}"
    return [scale_fault(scale, f"scale_{scale:.6g}", says)]


def _softcap(seen: Seen, before: float) -> list[AttentionVariant]:
    def error(power: float) -> float:
        return seen.error(replace(seen.p, softcap=math.exp(power)))

    power, least = _least(error, *(math.log(cap) for cap in CAPS))
    if least > FOUND * before:
        return []
    solved = math.exp(power)
    whole = float(max(round(solved), 1))
    cap = whole if seen.error(replace(seen.p, softcap=whole)) <= AS_GOOD * least else solved
    return [softcap_fault(cap)]


def _least(error: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """Where `error` is least: the best of a grid, then a golden section between its neighbours."""
    step = (high - low) / STEPS
    grid = [low + step * index for index in range(STEPS + 1)]
    best = min(grid, key=error)
    a, b = best - step, best + step
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    at_c, at_d = error(c), error(d)
    for _ in range(REFINEMENTS):
        if at_c < at_d:
            b, d, at_d = d, c, at_c
            c = b - GOLDEN * (b - a)
            at_c = error(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + GOLDEN * (b - a)
            at_d = error(d)
    return (c, at_c) if at_c < at_d else (d, at_d)


def _window(seen: Seen, before: float) -> list[AttentionVariant]:
    """Sums from the query's own key backwards give the output of every window at once."""
    full = replace(seen.p, window=None)
    count = seen.one.q.shape[1]
    at = torch.arange(count)
    one = replace(seen.one, visible=at[None] <= at[:, None])
    values = one.v.double().repeat_interleave(full.heads // full.kv_heads, dim=0)
    errors = torch.zeros(count + 1, dtype=torch.float64)  # by window
    for block in exact_blocks(one, full):
        for query in range(block.start, block.end):
            errors += _errors_by_window(block, query, values, seen.out[:, query])
    best = int(errors[1:].argmin()) + 1
    if best >= count or best == seen.p.window or float(errors[best]) > FOUND * before:
        return []
    return [window_fault(best)]


def _errors_by_window(block: Exact, query: int, values: Tensor, out: Tensor) -> Tensor:
    """[windows + 1] squared error of one query, index = keys that it sees."""
    backwards = block.probabilities[:, query - block.start, : query + 1].flip(1)
    sums = (backwards[:, :, None] * values[:, : query + 1].flip(1)).cumsum(1)
    totals = backwards.cumsum(1)[:, :, None]
    errors = (sums / totals - out[:, None]).nan_to_num(0.0).square().sum((0, 2))
    whole = torch.full((values.shape[1] + 1,), float(errors[-1]), dtype=torch.float64)
    whole[1 : query + 2] = errors
    return whole


def _mapping(seen: Seen, before: float) -> list[AttentionVariant]:
    """The key head and the value head that explain each query head best."""
    p, one = seen.p, seen.one
    if p.kv_heads == 1:
        return []
    alone = replace(p, heads=1, kv_heads=1)
    pairs, error = [], 0.0
    for head in range(p.heads):
        by_pair = {}
        for keys in range(p.kv_heads):
            cut = replace(one, q=one.q[head : head + 1], k=one.k[keys : keys + 1], v=one.v[:1])
            weights = torch.cat([b.probabilities for b in exact_blocks(cut, alone)], dim=1)[0]
            for values in range(p.kv_heads):
                gap = weights @ one.v[values].double() - seen.out[head]
                by_pair[keys, values] = float(gap.nan_to_num(math.inf).square().sum())
        pair = min(by_pair, key=by_pair.__getitem__)
        pairs.append(pair)
        error += by_pair[pair]
    group = p.heads // p.kv_heads
    right = [(head // group, head // group) for head in range(p.heads)]
    if pairs == right or error > FOUND * before:
        return []
    keys_of, values_of = ([pair[side] for pair in pairs] for side in (0, 1))
    # Whole key heads exchanged are a matter of the cache; within a group, of the grouping.
    groups = [pairs[start : start + group] for start in range(0, p.heads, group)]
    cached = all(len(set(one)) == 1 for one in groups)
    return [
        heads_fault(
            keys_of,
            values_of,
            "heads_of_cache" if cached else "heads_mapped",
            "cache" if cached else "formula",
            f"query heads read the keys of heads {keys_of} and the values of {values_of}",
        )
    ]
