"""Axis by axis: the fault that it is there for is found on it, and on a sound kernel nothing is."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.case import Shape
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.search import ACCURACY, Trial, search, wrong_rows
from driftscope_kernels.check.twins.ordered_ops import PLAIN
from driftscope_kernels.check.twins.reassociated import DTYPES, compute
from driftscope_kernels.registry import Kernel

BY_NAME = {(kernel.op, kernel.implementation): kernel for kernel in planted.kernels()}


def _axes(kernel: Kernel, kind: str = "normal", threads: int = 1) -> set[str]:
    case = op_case(kernel.op)
    rows = min(33, case.most_rows or 33)
    shape = Shape(100, 64) if "attention" in kernel.op else Shape(300, 8)
    with thread_count(threads):
        found = search(kernel, case, Trial(shape, torch.float32, kind, 0, rows))
    return {mismatch.axis for mismatch in found.mismatches}


@pytest.mark.parametrize(
    ("op", "fault", "axis"),
    [
        ("linear", "split_k_by_batch", "batch_size"),
        ("linear", "block_by_batch", "batch_size"),
        ("linear", "one_row_path", "split"),
        ("linear", "row_position", "position"),
        ("linear", "row_position", "permutation"),
        ("linear", "neighbour_leak", "neighbours"),
        ("linear", "batch_scale", "neighbours"),
        ("linear", "layout_path", "layout"),
        ("linear", "constant_layout", "layout"),
        ("linear", "random_order", "run_to_run"),
        ("attention", "page_order", "page_order"),
        ("attention", "page_size", "page_size"),
        ("attention_prefill", "query_tile", "query_chunk"),
    ],
)
def test_a_fault_shows_on_its_axis(op: str, fault: str, axis: str) -> None:
    assert axis in _axes(BY_NAME[op, fault])


def test_a_fault_that_the_axis_varies_alone_shows_there_alone() -> None:
    assert _axes(BY_NAME["linear", "layout_path"]) == {"layout"}
    assert _axes(BY_NAME["linear", "constant_layout"]) == {"layout"}
    assert _axes(BY_NAME["attention", "page_order"]) == {"page_order"}


def test_a_split_over_threads_shows_with_two() -> None:
    kernel = BY_NAME["linear", "thread_split"]
    assert _axes(kernel) == set()
    assert _axes(kernel, threads=2) == {"threads"}


@pytest.mark.parametrize("op", ["linear", "softmax", "rms_norm", "mean", "bmm"])
def test_a_sound_kernel_is_left_alone(op: str) -> None:
    sound = Kernel("test", op, "plain", lambda i, p: compute(op, i, p, PLAIN), DTYPES)
    for kind in op_case(op).kinds:
        assert _axes(sound, kind) <= {"layout"}, kind  # a plain sum reads any layout as it lies


def test_a_wrong_kernel_is_wrong_however_invariant() -> None:
    kernel = BY_NAME["linear", "raw_bit_add"]
    trial = Trial(Shape(64, 8), torch.bfloat16, "normal", 0, 9)
    assert not search(kernel, op_case("linear"), trial).mismatches
    wrong = wrong_rows(kernel, op_case("linear"), trial)
    assert wrong is not None
    assert wrong.axis == ACCURACY
