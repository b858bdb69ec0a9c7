"""Rotary position embedding as a Triton kernel.

In: x [..., heads, D], cos and sin [..., R/2]. Out: as `driftscope_kernels.reference.rotary`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import RotaryOptions
from driftscope_kernels.triton_kernels.arithmetic import load, rounded, through
from driftscope_kernels.triton_kernels.launch import ROWS, aligned, launch, programs
from driftscope_kernels.triton_kernels.softmax import program_rows

ARITHMETIC = {"fused": 0, "unfused": 1, "model_dtype": 2}
FUSED = tl.constexpr(ARITHMETIC["fused"])
UNFUSED = tl.constexpr(ARITHMETIC["unfused"])


def rotary(
    x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False, options: RotaryOptions
) -> Tensor:
    """As `reference.rotary.rotary`."""
    heads, width = x.shape[-2:]
    half = cos.shape[-1]
    tables = [aligned(t.expand(*x.shape[:-2], half)) for t in (cos, sin)]
    turned = aligned(x)
    out = torch.empty_like(turned)
    rows = x.shape[:-1].numel()
    sizes = {"rows": rows, "heads": heads, "width": width, "half": half}
    constants = {
        "INTERLEAVED": interleaved,
        "ROUND_TABLE": options.table == "rounded",
        "ARITHMETIC": ARITHMETIC[options.arithmetic],
        # tl.arange takes powers of two; these depend on the width of a head alone.
        "HALF": triton.next_power_of_2(max(half, 1)),
        "TAIL": triton.next_power_of_2(width - 2 * half) if width > 2 * half else 0,
        "ROWS": ROWS,
    }
    tensors = {"x_ptr": turned, "cos_ptr": tables[0], "sin_ptr": tables[1], "out_ptr": out}
    launch(rotary_kernel, (programs(rows, ROWS),), {**tensors, **sizes, **constants})
    return out


@triton.jit
def _turn(a, c, b, s, ARITHMETIC: tl.constexpr, dtype: tl.constexpr):
    """a·c + b·s with the rounding points asked for."""
    if ARITHMETIC == FUSED:
        return tl.fma(b, s, a * c)
    elif ARITHMETIC == UNFUSED:
        return a * c + b * s
    else:
        return through(a * c, dtype) + through(b * s, dtype)


@triton.jit(do_not_specialize=["rows"])
def rotary_kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    rows,
    heads,
    width,
    half,
    INTERLEAVED: tl.constexpr,
    ROUND_TABLE: tl.constexpr,
    ARITHMETIC: tl.constexpr,
    HALF: tl.constexpr,
    TAIL: tl.constexpr,
    ROWS: tl.constexpr,
):
    row, live = program_rows(rows, ROWS)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    i = tl.arange(0, HALF)[None, :]
    inside = live & (i < half)
    table = (row // heads) * half + i
    c = load(cos_ptr + table, inside)
    s = load(sin_ptr + table, inside)
    if ROUND_TABLE:
        c = through(c, dtype)
        s = through(s, dtype)
    first = row * width + (2 * i if INTERLEAVED else i)
    second = first + (1 if INTERLEAVED else half)
    x1 = load(x_ptr + first, inside)
    x2 = load(x_ptr + second, inside)
    o1 = _turn(x1, c, -x2, s, ARITHMETIC, dtype)
    o2 = _turn(x2, c, x1, s, ARITHMETIC, dtype)
    tl.store(out_ptr + first, rounded(o1, dtype), mask=inside)
    tl.store(out_ptr + second, rounded(o2, dtype), mask=inside)
    if TAIL > 0:
        j = 2 * half + tl.arange(0, TAIL)[None, :]
        kept = live & (j < width)
        offset = row * width + j
        tl.store(out_ptr + offset, rounded(load(x_ptr + offset, kept), dtype), mask=kept)
