"""The class of cause, for faults whose cause is known."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.case import Shape
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.search import Trial, search
from driftscope_kernels.check.twins.reassociated import Twin
from driftscope_kernels.check.verdict import (
    GEMV,
    M_REMAINDER,
    SPLIT_K,
    SPLIT_KV,
    block_length,
    cause,
)
from driftscope_kernels.registry import Kernel

BY_NAME = {(kernel.op, kernel.implementation): kernel for kernel in planted.kernels()}


def _cause(kernel: Kernel, shape: Shape, axis: str, threads: int = 1) -> str:
    case = op_case(kernel.op)
    with thread_count(threads):
        trial = Trial(shape, torch.float32, "cancelling", 0, min(33, case.most_rows or 33))
        found = search(kernel, case, trial, only=(axis,)).mismatches[0]
        return cause(kernel, case, found).name


@pytest.mark.parametrize(
    ("kernel", "axis", "name"),
    [
        (Twin("reverse", "one_row").kernel("linear"), "batch_size", GEMV),
        (Twin("reverse", "three_rows").kernel("linear"), "batch_size", M_REMAINDER),
        (BY_NAME["linear", "split_k_by_batch"], "batch_size", SPLIT_K),
        (BY_NAME["linear", "row_position"], "position", "row position"),
        (BY_NAME["linear", "layout_path"], "layout", "layout"),
        (BY_NAME["linear", "random_order"], "run_to_run", "run to run"),
    ],
)
def test_faults_of_linear(kernel: Kernel, axis: str, name: str) -> None:
    assert _cause(kernel, Shape(256, 8), axis) == name


def test_attention_that_splits_its_context() -> None:
    kernel = BY_NAME["attention", "split_k_by_batch"]
    assert _cause(kernel, Shape(100, 64), "batch_size") == SPLIT_KV


def test_a_split_over_threads() -> None:
    kernel = BY_NAME["linear", "thread_split"]
    assert _cause(kernel, Shape(256, 8), "threads", threads=2) == "thread split"


def test_block_lengths() -> None:
    assert block_length(list(range(2, 65))) is None  # one chain
    assert block_length([*range(2, 33), *[64] * 32]) == 32  # two halves
    assert block_length([*range(2, 17), *[32] * 16, *[48] * 16, *[64] * 16]) == 16
    assert block_length([64] * 63) is None  # 16 lanes: neighbours meet last
