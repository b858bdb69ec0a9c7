"""A case of an op: the inputs it is checked with and what its results are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from driftscope_kernels.check.placements.placement import Batch
from driftscope_kernels.check.twins.oracles import Oracle

ACTIVATIONS_FILE = Path(__file__).with_name("activations.safetensors")
NORMAL, CANCELLING, WIDE, LINEAR_RANGE = "normal", "cancelling", "wide", "linspace"
ACTIVATIONS, ABSORBING, SENSITIVE = "activations", "absorbing", "sensitive"
#: Kinds for sums whose terms have both signs, and for those whose terms have one.
SIGNED_KINDS = (NORMAL, CANCELLING, WIDE, LINEAR_RANGE, ACTIVATIONS)
POSITIVE_KINDS = (NORMAL, SENSITIVE, ABSORBING, WIDE, LINEAR_RANGE, ACTIVATIONS)
#: Where nothing is summed, and what can differ is how the terms of one element are rounded.
TERMWISE_KINDS = (NORMAL, SENSITIVE, WIDE, ACTIVATIONS)

#: Exponents of WIDE, ±: products of two stay far from the overflow of each dtype.
WIDE_EXPONENT = {torch.float32: 12, torch.bfloat16: 12, torch.float16: 4}
#: Exponents of CANCELLING, ±: 21 binary places on top of the significand's 8 to 24, so that a
#: float32 accumulator has to round; within fp16's range.
CANCELLING_EXPONENT = 10
#: Thinking Machines' batch_invariant_ops test theirs on torch.linspace(-100, 100).
LINSPACE_LIMIT = 100.0
#: Orders by which SENSITIVE chooses its rows; none is one of the planted twins' orders.
SHUFFLES = 6
#: Values in the pool that they are chosen from, and rows at most.
POOL_VALUES, POOL_ROWS = 4_000_000, 4096
#: A term of 2⁻²⁴ is half a unit in the last place of a float32 sum of 1: alone it vanishes in it,
#: with a second one added to it first it does not.
ABSORBED_TERM = 2.0**-24


def values(kind: str, rows: int, k: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    """[rows, k]; ABSORBING and SENSITIVE need the op's own terms and have their own functions."""
    if kind == NORMAL:
        return torch.randn(rows, k, generator=generator).to(dtype)
    if kind == CANCELLING:
        return cancelling(rows, k, dtype, generator)
    if kind == WIDE:
        limit = WIDE_EXPONENT[dtype]
        exponent = torch.randint(-limit, limit + 1, (rows, k), generator=generator)
        return torch.ldexp(torch.randn(rows, k, generator=generator), exponent).to(dtype)
    if kind == LINEAR_RANGE:
        return torch.linspace(-LINSPACE_LIMIT, LINSPACE_LIMIT, rows * k).view(rows, k).to(dtype)
    assert kind == ACTIVATIONS, kind
    return activations(rows, k, generator).to(dtype)


def cancelling(rows: int, k: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    """Rows whose exact sum is 0: element p(2i+1) is minus element p(2i), p a random order.

    What a kernel returns is then rounding error only, of which every bit depends on the order.
    """
    limit = CANCELLING_EXPONENT
    exponent = torch.randint(-limit, limit + 1, (rows, k // 2), generator=generator)
    half = torch.ldexp(torch.randn(rows, k // 2, generator=generator), exponent).to(dtype)
    row = torch.cat([half, -half, half.new_ones(rows, k % 2)], dim=1)
    return row[:, _pair_order(k)]


def paired(rows: int, k: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    """The weights that leave `cancelling` rows cancelling: equal where those are opposite."""
    half = torch.randn(rows, k // 2, generator=generator).to(dtype)
    row = torch.cat([half, half, half.new_zeros(rows, k % 2)], dim=1)
    return row[:, _pair_order(k)]


def absorbing(rows: int, k: int, large: float, small: float, dtype: torch.dtype) -> Tensor:
    """One large term per row, its place moving with the row, all others small.

    Small terms are lost one by one in an accumulator that has met the large one, and kept where
    they meet each other first: the result says how many did.
    """
    row = torch.full((rows, k), small, dtype=torch.float32)
    # Not all rows alike: each has its own size of the small terms, within a factor of two.
    row *= (1 + torch.arange(rows) / rows)[:, None]
    row[torch.arange(rows), torch.arange(rows) * max(1, k // 7) % k] = large
    return row.to(dtype)


def sensitive(pool: Tensor, rows: int, results: Callable[[Tensor, int | None], Tensor]) -> Tensor:
    """The rows of the pool whose results change most often when their terms are shuffled.

    In bf16 a last-place change of the sum shows only where an element stands next to the middle of
    two representable values; among random rows few have such an element. `results(pool, seed)`
    computes the op with the terms in the order of that seed (None: as they are).
    """
    plain = results(pool, None)
    score = torch.zeros(len(pool))
    for seed in range(1, SHUFFLES + 1):
        changed = (results(pool, seed) != plain).reshape(len(pool), -1)
        score += changed.any(dim=1)
    return pool[score.argsort(descending=True, stable=True)[:rows]]


def activations(rows: int, k: int, generator: Generator) -> Tensor:
    """Hidden states captured from a language model, tiled with random signs to any width."""
    captured = _captured()
    needed = math.ceil(rows * k / captured.numel())
    flat = captured.reshape(-1).repeat(needed)[: rows * k].view(rows, k)
    signs = torch.randint(0, 2, (rows, k), generator=generator) * 2 - 1
    return flat * signs if needed > 1 else flat


@cache
def _captured() -> Tensor:
    return load_file(ACTIVATIONS_FILE)["hidden"].float()


def _pair_order(k: int) -> Tensor:
    # One order for rows and weights: the seed is part of the construction, not of the trial.
    return torch.randperm(k, generator=Generator().manual_seed(k))


DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Subject:
    """Which kernel, at which dtype and number of threads."""

    target: str
    op: str
    implementation: str
    dtype: torch.dtype
    threads: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "dtype": DTYPE_NAMES[self.dtype]}


EPS = 1e-6  # as in Llama-like models
BMM_ROWS = 4  # rows of every matrix of a batched product
HEADS, KV_HEADS = 4, 2
ATTENTION_CALL_S = 0.02  # a call includes the filling of the cache
MOST_ROWS = 257


@dataclass(frozen=True, slots=True)
class Shape:
    """k: length of the reduction (context length of attention). n: outputs (width of a head)."""

    k: int
    n: int = 1


@dataclass(frozen=True, slots=True)
class OpCase:
    op: str
    kinds: tuple[str, ...]
    shapes: tuple[Shape, ...]
    quick_shapes: tuple[Shape, ...]
    build: Callable[[Shape, int, torch.dtype, str, int], Batch]
    oracle: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Oracle] | None
    most_rows: int | None = None  # None: as many as the check asks for
    layouts: bool = True
    paged: bool = False
    prefill: bool = False  # every token of the context is a query
    constants: bool = False  # there are inputs that all rows share
    micro_batches: bool = False  # a weight gradient: k tokens, rows are those of the weight
    least_n: int = 1  # shrinking goes no further
    # Seconds that a call of 9 rows may take before fewer rows, shapes and kinds are checked.
    slow_call_s: float = 0.001
