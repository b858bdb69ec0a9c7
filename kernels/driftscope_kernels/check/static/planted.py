"""Kernels that are not batch invariant, for the static check to refute.

In: x [rows, K] float32. Out: row sums [rows], wrong in ways that only the compiled code shows; and
attention whose tiles of keys follow the batch, which a batch taken apart shows as well.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import VLLM_ATTENTION
from driftscope_kernels.triton_kernels.attention import run, score_arguments
from driftscope_kernels.triton_kernels.launch import launch, programs

FEW_ROWS = 16  # up to so many, a row is added in parts
FEW_QUERIES = 16  # up to so many, a program takes fewer keys at a time
SPLIT = 64  # elements of a row that one program adds
BLOCK = 128


def atomic_split_sum(x: Tensor) -> Tensor:
    """A row's parts are added to its sum by whichever program comes first."""
    rows, n = x.shape
    out = x.new_zeros(rows)
    arguments = {"x_ptr": x, "out_ptr": out, "rows": rows, "n": n, "SPLIT": SPLIT}
    launch(atomic_split_kernel, (rows, programs(n, SPLIT)), arguments)
    return out


def specialised_sum(x: Tensor) -> Tensor:
    """`rows` is left to Triton's specialisation, and the order of the sum follows it."""
    rows, n = x.shape
    out = x.new_empty(rows)
    arguments = {"x_ptr": x, "out_ptr": out, "rows": rows, "n": n, "BLOCK": BLOCK}
    launch(specialised_kernel, (programs(rows, BLOCK),), arguments)
    return out


def sum_in_parts(x: Tensor) -> Tensor:
    """One binary, which is told the length of the parts that it adds; few rows get short ones."""
    rows, n = x.shape
    out = x.new_empty(rows)
    part = SPLIT if rows <= FEW_ROWS else n
    arguments = {"x_ptr": x, "out_ptr": out, "rows": rows, "n": n, "part": part, "BLOCK": BLOCK}
    launch(parts_kernel, (programs(rows, BLOCK),), arguments)
    return out


def attention_with_tiles_by_batch(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, seqlens_k: Tensor, scale: float
) -> Tensor:
    """Ours, but for the number of keys in a tile, "tuned" by the number of queries."""
    out = q.new_empty(q.shape)
    tile = 32 if len(q) <= FEW_QUERIES else 64
    score = score_arguments(q, scale, None, None)
    lengths = (cu_seqlens_q, seqlens_k)
    run(q, k, v, *lengths, None, out, None, score, VLLM_ATTENTION, "in_order", tile)
    return out


@triton.jit(do_not_specialize=["rows"])
def atomic_split_kernel(x_ptr, out_ptr, rows, n, SPLIT: tl.constexpr):
    column = tl.program_id(1) * SPLIT + tl.arange(0, SPLIT)
    x = tl.load(x_ptr + tl.program_id(0) * n + column, mask=column < n, other=0.0)
    tl.atomic_add(out_ptr + tl.program_id(0), tl.sum(x))


@triton.jit
def specialised_kernel(x_ptr, out_ptr, rows, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(0, n):
        total += tl.load(x_ptr + row * n + k, mask=row < rows, other=0.0)
    tl.store(out_ptr + row, total, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "part"])
def parts_kernel(x_ptr, out_ptr, rows, n, part, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, part):
        partial = tl.zeros((BLOCK,), tl.float32)
        for k in range(first, tl.minimum(first + part, n)):
            partial += tl.load(x_ptr + row * n + k, mask=row < rows, other=0.0)
        total += partial
    tl.store(out_ptr + row, total, mask=row < rows)
