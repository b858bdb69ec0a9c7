"""Inputs and comparisons that the tests of the CPU kernels share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import instruction_sets

SAME_SIZE = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
SPECIAL = (0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-40, 6e-8, 65504.0, 3e38)


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view(SAME_SIZE[x.dtype])


@pytest.fixture(scope="session")
def bits() -> Callable[[Tensor], Tensor]:
    """Tensor as integers, for comparisons that tell NaN from NaN and -0 from +0."""
    return _bits


@pytest.fixture(scope="session")
def wide() -> Callable[..., Tensor]:
    """Random numbers of many magnitudes with a few special values."""

    def make(shape: tuple[int, ...], dtype: torch.dtype, seed: int, kind: str = "wide") -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=generator)
        reach = 4 if dtype == torch.float16 else 12
        x = x * 2.0 ** torch.randint(-reach, reach, shape, generator=generator)
        if kind == "tiny":  # products and sums near and below the smallest normal number
            x = x * (2.0**-8 if dtype == torch.float16 else 2.0**-63)
        if kind == "special" and x.numel():
            places = torch.randint(0, x.numel(), (4,), generator=generator)
            chosen = torch.randint(0, len(SPECIAL), (4,), generator=generator)
            x.view(-1)[places] = torch.tensor(SPECIAL)[chosen]
        return x.to(dtype)

    return make


@pytest.fixture(scope="session")
def isas() -> tuple[str, ...]:
    """What `isa` goes through on this CPU, for tests that hold all of it to one reference."""
    return instruction_sets()


@pytest.fixture(scope="session", params=("avx512_bf16", "avx512", "avx2", "scalar", "portable"))
def isa(request: pytest.FixtureRequest) -> str:
    """Every way to compute; those that this CPU lacks are skipped."""
    name: str = request.param
    if name not in instruction_sets():
        pytest.skip(f"this CPU has no {name}")
    return name
