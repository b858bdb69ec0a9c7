"""What was done to one of two tensors, in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from driftscope_probes.explain.weight_difference import weight_difference


def weight(rows: int = 96, columns: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((rows, columns), generator=generator).to(torch.bfloat16)


def with_row(value: Tensor, row: int, other: Tensor) -> Tensor:
    changed = value.clone()
    changed[row] = other
    return changed


CHANGES: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda w: with_row(w, 3, w[3] * float("nan")), "64 elements of the engine's are not finite"),
    (torch.zeros_like, "the engine's is all zeros"),
    (lambda w: w[torch.arange(95, -1, -1)], "all rows are there, in another order"),
    (
        lambda w: w[:, [*range(8), *range(16, 24), *range(8, 16), *range(24, 64)]],
        "one block of columns 8-23 permuted, all else equal",
    ),
    (lambda w: with_row(w, 7, weight(1, 64, 1)[0]), "row 7 of 96, all else equal"),
    (
        lambda w: torch.cat([w[:32], weight(32, 64, 1), w[64:]]),
        "rows 32-63 of 96, all else equal",
    ),
    (lambda w: w.to(torch.float8_e5m2).to(w.dtype), "the engine's is rounded to float8_e5m2"),
    (lambda w: w * 1.25, "the engine's is the trainer's times 1.25"),
    (lambda w: w + weight(96, 2, 1) @ weight(2, 64, 2) * 0.25, "rank-2 difference"),
    (lambda w: w + weight(seed=1) * 0.01, "as of other steps of one training"),
    (lambda w: w + weight(seed=1), "all of it, by 101% of its size (cosine 0.709)"),
    (lambda w: weight(seed=1), "all of it: other weights altogether"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_what_was_done_is_said(change: Callable[[Tensor], Tensor], says: str) -> None:
    found = weight_difference("w", change(weight()), weight())
    assert found is not None
    assert says in found.says


def test_transposed() -> None:
    square = weight(64, 64)
    found = weight_difference("w", square.t().contiguous(), square)
    assert found is not None and found.says == "transposed"


def test_ulps_are_counted_across_zero() -> None:
    mine = torch.tensor([1.0, torch.finfo(torch.float32).smallest_normal, -0.0, 0.0])
    other = torch.tensor([1.0, -1e-45, 0.0, 0.0])  # the negative number nearest to zero
    found = weight_difference("w", mine, other)
    assert found is not None
    assert found.equal_fraction == 0.75  # a zero is equal to its negative
    assert found.says == f"1 element of 4: [1] by {2**23 + 1:,} ULP"


def test_equal_tensors_have_no_difference() -> None:
    assert weight_difference("w", weight(), weight()) is None


def test_without_decomposition_no_rank_is_named() -> None:
    changed = weight() + weight(96, 2, 1) @ weight(2, 64, 2) * 0.25
    found = weight_difference("w", changed, weight(), decompose=False)
    assert found is not None and found.says.startswith("all of it, by ")
