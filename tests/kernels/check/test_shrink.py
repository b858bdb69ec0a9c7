"""A counterexample becomes as small as the fault allows, and stays a counterexample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.case import Shape
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.detection import shrink
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.run_check import Plan, check_kernel, replay
from driftscope_kernels.check.search import Trial, search
from driftscope_kernels.check.twins.ordered_ops import PLAIN
from driftscope_kernels.check.twins.reassociated import DTYPES, compute
from driftscope_kernels.registry import Kernel

#: The planted fault needs at least so many terms and fewer rows than this.
NEEDED_K, NEEDED_ROWS = 37, 5


def _faulty(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    x = inputs["x"]
    hit = x.shape[1] >= NEEDED_K and len(x) < NEEDED_ROWS
    return compute("linear", inputs, params, "reverse" if hit else PLAIN)


KERNEL = Kernel("test", "linear", "faulty", _faulty, DTYPES)


def test_the_smallest_shape_with_the_fault_is_found() -> None:
    case = op_case("linear")
    with thread_count(1):
        trial = Trial(Shape(200, 24), torch.float32, "normal", 0, 33)
        found = search(KERNEL, case, trial, only=("batch_size",)).mismatches[0]
        assert (found.left.count, found.right.count) == (33, 1)
        smallest = shrink(KERNEL, case, found)
        assert smallest.trial.shape == Shape(NEEDED_K, 1)
        assert (smallest.left.count, smallest.right.count) == (NEEDED_ROWS, 1)
        again = replay(KERNEL, smallest.axis, smallest.trial, smallest.left, smallest.right)
    assert again is not None
    assert again.difference == smallest.difference


def test_places_in_a_batch_stay_within_it() -> None:
    """A smaller batch than the distance of the two places would leave nothing to compare."""
    (kernel,) = (k for k in planted.kernels() if k.name == "planted/linear/row_position")
    with thread_count(1):
        verdict = check_kernel(kernel, torch.bfloat16, Plan(quick=True))
    assert verdict.counterexample is not None
    found = verdict.counterexample.mismatch
    assert found.axis == "position" and found.rows_compared > 0
    ends = [side.start + side.count for side in (found.left, found.right)]
    assert max(ends) == found.trial.rows


def test_without_time_the_first_one_stays() -> None:
    case = op_case("linear")
    trial = Trial(Shape(200, 24), torch.float32, "normal", 0, 33)
    found = search(KERNEL, case, trial, only=("batch_size",)).mismatches[0]
    assert shrink(KERNEL, case, found, budget_s=0.0) == found
