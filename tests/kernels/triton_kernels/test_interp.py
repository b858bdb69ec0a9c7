# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators
"""The interpreter's known faults with bfloat16 are still the only ones, and its fma is fused."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from driftscope_kernels.triton_kernels.launch import interpreting

# Triton 3.9.0 holds a bfloat16 number as 16 bits and does integer arithmetic on them, and its cast
# to bfloat16 cuts off. The kernels never let it: they widen what they load and round by integers.
KNOWN_FAULTS = frozenset({"bfloat16 add", "bfloat16 cast", "bfloat16 dot"})
SIZE = 16  # the smallest tl.dot


class NotInterpretingError(RuntimeError):
    """The process compiles kernels instead of interpreting them."""


def faults() -> frozenset[str]:
    """What differs from torch: KNOWN_FAULTS, and "fma" if that were no longer fused."""
    if not interpreting():
        raise NotInterpretingError("start this process with TRITON_INTERPRET=1")
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIZE, SIZE, generator=generator) for _ in range(2))
    x, y = a.bfloat16(), b.bfloat16()
    added, cast, dot, fused = (torch.empty_like(a) for _ in range(4))
    probe_kernel[(1,)](a, x, y, added, cast, dot, fused, SIZE=SIZE)
    # 1 + 2^-12 squared, minus what is left of it after one rounding: 2^-24 if it is fused.
    found = {
        "bfloat16 add": not added.equal((x + y).float()),
        "bfloat16 cast": not cast.equal(a.bfloat16().float()),
        "bfloat16 dot": not torch.allclose(dot, x.float() @ y.float(), rtol=1e-3, atol=1e-3),
        "fma": not bool((fused == 2.0**-24).all()),
    }
    return frozenset(name for name, is_wrong in found.items() if is_wrong)


@triton.jit
def probe_kernel(a_ptr, x_ptr, y_ptr, added_ptr, cast_ptr, dot_ptr, fused_ptr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    x = tl.load(x_ptr + place)
    y = tl.load(y_ptr + place)
    tl.store(added_ptr + place, (x + y).to(tl.float32))
    tl.store(cast_ptr + place, tl.load(a_ptr + place).to(tl.bfloat16).to(tl.float32))
    tl.store(dot_ptr + place, tl.dot(x, y))
    near_one = tl.full((SIZE, SIZE), 1.0 + 2.0**-12, tl.float32)
    tl.store(fused_ptr + place, tl.fma(near_one, near_one, -(1.0 + 2.0**-11)))


INTERPRETED = True


def test_faults_are_the_known_ones() -> None:
    assert faults() == KNOWN_FAULTS
