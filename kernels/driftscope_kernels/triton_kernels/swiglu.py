"""SwiGLU and its gradients as Triton kernels.

In: gate and up, one shape and dtype. Out: as `driftscope_kernels.reference.swiglu`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from driftscope_kernels.options import SwigluOptions
from driftscope_kernels.triton_kernels.arithmetic import divided, exp, load, rounded, through
from driftscope_kernels.triton_kernels.launch import aligned, launch, programs

BLOCK = 1024  # elements of one program: 8 per thread


def swiglu(gate: Tensor, up: Tensor, *, options: SwigluOptions) -> Tensor:
    """As `reference.swiglu.swiglu`."""
    g, u = aligned(gate), aligned(up)
    out = torch.empty_like(g)
    arguments = {"gate_ptr": g, "up_ptr": u, "out_ptr": out, "count": g.numel()}
    constants = {"ROUND_SILU": options.silu == "rounded", "BLOCK": BLOCK}
    launch(swiglu_kernel, (programs(g.numel(), BLOCK),), {**arguments, **constants})
    return out


def swiglu_backward(
    dy: Tensor, gate: Tensor, up: Tensor, *, options: SwigluOptions
) -> tuple[Tensor, Tensor]:
    """As `reference.swiglu.swiglu_backward`."""
    d, g, u = aligned(dy), aligned(gate), aligned(up)
    dgate, dup = torch.empty_like(g), torch.empty_like(g)
    arguments = {"dy_ptr": d, "gate_ptr": g, "up_ptr": u, "dgate_ptr": dgate, "dup_ptr": dup}
    constants = {"ROUND_SILU": options.silu == "rounded", "BLOCK": BLOCK}
    grid = (programs(g.numel(), BLOCK),)
    launch(swiglu_backward_kernel, grid, {**arguments, "count": g.numel(), **constants})
    return dgate, dup


@triton.jit(do_not_specialize=["count"])
def swiglu_kernel(gate_ptr, up_ptr, out_ptr, count, ROUND_SILU: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    gate = load(gate_ptr + place, inside)
    silu = divided(gate, 1.0 + exp(-gate))
    if ROUND_SILU:
        silu = through(silu, gate_ptr.dtype.element_ty)
    y = silu * load(up_ptr + place, inside)
    tl.store(out_ptr + place, rounded(y, out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def swiglu_backward_kernel(
    dy_ptr,
    gate_ptr,
    up_ptr,
    dgate_ptr,
    dup_ptr,
    count,
    ROUND_SILU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    dy = load(dy_ptr + place, inside)
    gate = load(gate_ptr + place, inside)
    below = 1.0 + exp(-gate)
    s = divided(tl.full((BLOCK,), 1.0, tl.float32), below)
    silu = divided(gate, below)
    dtype: tl.constexpr = gate_ptr.dtype.element_ty
    if ROUND_SILU:
        silu = through(silu, dtype)
    slope = s * tl.fma(gate, 1.0 - s, 1.0)
    dgate = (dy * load(up_ptr + place, inside)) * slope
    tl.store(dgate_ptr + place, rounded(dgate, dtype), mask=inside)
    tl.store(dup_ptr + place, rounded(dy * silu, dtype), mask=inside)
