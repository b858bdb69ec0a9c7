"""Gradients: row gradients over batches, weight gradients over micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.case import CANCELLING
from driftscope_kernels.check.cases.op_cases import OP_CASES, op_case
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.run_check import Plan, check_kernel
from driftscope_kernels.check.search import Trial, search
from driftscope_kernels.check.twins.oracles import is_close
from driftscope_kernels.check.twins.ordered_ops import PLAIN
from driftscope_kernels.check.twins.reassociated import DTYPES, compute
from driftscope_kernels.registry import PREFERENCE, Kernel
from driftscope_kernels.targets import driftscope, gradients, torch_ops

#: Attention's are among the compiled kernels of the slow check.
GRADIENTS = [op for op in OP_CASES if ".grad" in op and not op.startswith("attention")]
WEIGHTS = [op for op in GRADIENTS if OP_CASES[op].micro_batches]
OURS = {k.op: k for k in driftscope.kernels() if k.implementation == "cpu"}
TORCH = {k.op: k for k in torch_ops.kernels() if k.implementation == "eager"}
PLAN = Plan(quick=True)


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str))
@pytest.mark.parametrize("op", GRADIENTS)
def test_ours_torchs_and_the_twins_are_near_float64(op: str, dtype: torch.dtype) -> None:
    case = op_case(op)
    batch = case.build(case.quick_shapes[0], 5, dtype, "normal", 0)
    assert case.oracle is not None
    oracle = case.oracle(batch.inputs, batch.params)
    plain: Tensor = compute(op, batch.inputs, batch.params, PLAIN)
    assert is_close(plain, oracle).all()
    for kernel in (OURS[op], TORCH[op]):
        assert is_close(kernel.run(batch.inputs, batch.params), oracle).all(), kernel.name


@pytest.mark.parametrize("op", GRADIENTS)
def test_ours_hold_by_tests_that_see_enough(op: str) -> None:
    with thread_count(1):
        verdict = check_kernel(OURS[op], torch.bfloat16, PLAN)
    assert verdict.verdict == ("PROVED" if op.startswith(("linear", "bmm")) else "NOT_REFUTED")
    assert verdict.detection is not None
    assert verdict.detection.rate >= 0.95


@pytest.mark.parametrize("op", WEIGHTS)
def test_autograd_adds_micro_batches_up_in_another_order(op: str) -> None:
    with thread_count(1):
        verdict = check_kernel(TORCH[op], torch.float32, PLAN)
    assert verdict.verdict == "REFUTED"
    assert verdict.counterexample is not None
    assert verdict.counterexample.cause.name == "micro-batch split"


@pytest.mark.parametrize("fault", ["split_by_tokens", "micro_batch_sums"])
@pytest.mark.parametrize("op", WEIGHTS)
def test_faults_of_weight_gradients_show_on_their_axis_alone(op: str, fault: str) -> None:
    kernel = next(k for k in planted.kernels() if (k.op, k.implementation) == (op, fault))
    assert _axes(kernel) == {"micro_batch"}


def test_a_split_k_of_the_row_gradient_shows_over_batch_sizes() -> None:
    faults = {k.op: k for k in planted.kernels() if k.implementation == "split_k_by_batch"}
    assert "batch_size" in _axes(faults["linear.grad_x"])


def test_every_gradient_of_an_op_is_offered_by_each_implementation() -> None:
    named = {gradient.op for gradient in gradients.GRADIENTS}
    assert named == {op for op in OP_CASES if ".grad" in op}
    for name in PREFERENCE:
        offered = {k.op for k in driftscope.kernels() if k.implementation == name}
        too_slow = {op for implementation, op in driftscope.TOO_SLOW if implementation == name}
        assert named - offered == too_slow
    assert set(TORCH) >= named


def _axes(kernel: Kernel) -> set[str]:
    case = op_case(kernel.op)
    trial = Trial(case.quick_shapes[0], torch.float32, CANCELLING, 0, 9)
    with thread_count(1):
        return {found.axis for found in search(kernel, case, trial).mismatches}
