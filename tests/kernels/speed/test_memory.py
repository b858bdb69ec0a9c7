"""Memory of a way is what a process of its own grows by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from driftscope_kernels.speed import token_logprob
from driftscope_kernels.speed.token_logprob import MEMORY_TARGET, MemoryRow, grown_bytes

CHILDREN = Path(__file__).parent / "children"
ROOT = Path(__file__).parents[3]
#: The planted way takes 201 MB: the system counts pages per processor and adds them up in batches,
#: so that a process may seem a few hundred kilobytes smaller than it is.
PLANTED_BYTES = 200 * 10**6
#: What a process may grow by without any tensor: pages of the allocator and the interpreter.
NOISE_BYTES = 20 * 10**6

pytestmark = pytest.mark.skipif(
    not token_logprob.MEMORY_AVAILABLE, reason="needs Linux's clear_refs"
)


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{CHILDREN}:{ROOT / 'kernels'}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_way_that_takes_200_mb_shows_them(dtype: torch.dtype) -> None:
    grown = grown_bytes("planted_ways", "large", dtype, 64)
    assert PLANTED_BYTES <= grown < PLANTED_BYTES + NOISE_BYTES


def test_each_way_has_a_process_of_its_own() -> None:
    """After the large one, here as well, the small one is still small."""
    held = torch.ones(PLANTED_BYTES // 4)
    assert grown_bytes("planted_ways", "large", torch.float32, 64) >= PLANTED_BYTES
    assert grown_bytes("planted_ways", "small", torch.float32, 64) < NOISE_BYTES
    assert held.numel() == PLANTED_BYTES // 4


def test_a_way_that_fails_is_told_with_its_error() -> None:
    with pytest.raises(RuntimeError, match="planted failure"):
        grown_bytes("planted_ways", "broken", torch.float32, 4)


@pytest.mark.parametrize(
    ("ours", "plain", "ratio", "reached"),
    [(10, 80, 8.0, True), (10, 79, 7.9, False), (0, 100, 100.0, True), (100, 50, 0.5, False)],
)
def test_ratio_and_target(ours: int, plain: int, ratio: float, reached: bool) -> None:
    row = MemoryRow("bf16", 4, ours, plain)
    assert (row.ratio, row.reached) == (ratio, reached)
    assert MEMORY_TARGET == 8.0
