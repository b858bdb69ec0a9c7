# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators
"""Reads the compiled code of Triton kernels, in a process that imports Triton and runs nothing.

    python -m driftscope_kernels.check.static.static_process REQUEST RESULTS

REQUEST: {"cases": [[name, dtype], …], "architectures": […], "planted": bool}. RESULTS: a list of
{"name", "architecture", "verdict", "reasons", "binaries", "batch_sizes"}; `verdict` is null where
the code could not be compiled, and `reasons` says why. `planted` adds kernels that are wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler.errors import CompilationError

from driftscope_kernels.check.placements.placement import REFUSALS
from driftscope_kernels.options import VLLM_ATTENTION
from driftscope_kernels.triton_kernels.attention import run, score_arguments
from driftscope_kernels.triton_kernels.cases import CASES
from driftscope_kernels.triton_kernels.launch import launch, programs
from driftscope_kernels.triton_kernels.static_check import DTYPES, case_op, static_verdict

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


#: Elements per row that the planted kernels are launched with.
PLANTED_WIDTH = 200
FAULTS: tuple[Callable[..., Any], ...] = (
    atomic_split_sum,
    specialised_sum,
    sum_in_parts,
)


def _faulty(function: Callable[..., Any]) -> Callable[[int], Any]:
    return lambda rows: function(torch.empty(rows, PLANTED_WIDTH))


def _wanted(request: dict[str, Any]) -> Iterator[tuple[str, Callable[[int], Any]]]:
    for name, dtype in request["cases"]:
        yield f"{name}/{dtype}", case_op(CASES[name], DTYPES[dtype])
    for function in FAULTS if request["planted"] else ():
        yield f"planted/{function.__name__}", _faulty(function)


def _read(name: str, op: Callable[[int], Any], architecture: str) -> dict[str, Any]:
    try:
        found = static_verdict(name, op, architecture).to_dict()
    except (*REFUSALS, CompilationError, subprocess.CalledProcessError) as error:
        reason = f"not compiled: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"
        found = {"verdict": None, "reasons": [reason], "binaries": [], "batch_sizes": []}
        return {**found, "assumptions": [], "name": name, "architecture": architecture}
    return {**found, "architecture": found.pop("arch")}


def _serve(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _read(name, op, architecture)
        for name, op in _wanted(request)
        for architecture in request["architectures"]
    ]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_serve(json.loads(Path(sys.argv[1]).read_text()))))
