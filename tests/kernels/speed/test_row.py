"""A row: medians, ratios above 1 where ours is faster, and whether its targets are reached."""

from __future__ import annotations

import pytest

from driftscope_kernels.speed.row import SpeedRow, speed_row

TIMES = {"ours": [1.0, 2.0, 4.0], "torch": [3.0, 4.0, 4.0], "vllm": [1.0, 1.0, 1.0]}


def row(target: float | None, vllm_target: float | None = None, **times: list[float]) -> SpeedRow:
    return speed_row("linear", "fp32", (8, 4, 2), times, target, vllm_target=vllm_target)


def test_numbers() -> None:
    made = row(1.1, 0.95, **TIMES)
    assert (made.k, made.n, made.m) == (8, 4, 2)
    assert (made.ours_s, made.torch_s, made.vllm_s) == (2.0, 4.0, 1.0)
    assert (made.speed_ratio, made.best_ratio) == (2.0, 3.0)
    assert (made.vllm_ratio, made.vllm_best_ratio) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("target", "vllm_target", "reached"),
    [
        (None, None, True),
        (2.0, None, True),
        (2.1, None, False),
        (2.0, 0.5, True),
        (2.0, 0.6, False),
    ],
)
def test_every_target_that_was_set_counts_by_the_median(
    target: float | None, vllm_target: float | None, reached: bool
) -> None:
    assert row(target, vllm_target, **TIMES).reached is reached


def test_without_vllm_its_target_does_not_count() -> None:
    made = row(1.0, 99.0, ours=[1.0], torch=[2.0])
    assert made.reached
    assert made.vllm_s is made.vllm_ratio is made.vllm_best_ratio is made.vllm_target is None
