"""What the checker has to know of an op: its inputs, its shapes, how exact its result must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.check.placements.placement import Batch
from driftscope_kernels.check.twins.oracles import Oracle

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
