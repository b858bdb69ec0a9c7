"""The value tests catch nearly all planted twins, of every op and dtype."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check.cases.case import NORMAL, Shape
from driftscope_kernels.check.cases.op_cases import OP_CASES, op_case
from driftscope_kernels.check.detection import ENOUGH, detection, order_of_power
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.search import Trial, search
from driftscope_kernels.check.twins.ordered_ops import PLAIN
from driftscope_kernels.check.twins.reassociated import DTYPES, Twin, compute
from driftscope_kernels.registry import Kernel

#: Attention's twins take seconds each; one dtype shows that they are caught.
QUICK = [op for op in OP_CASES if not op.startswith(("attention", "sdpa"))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", QUICK)
def test_rate_of_every_op(op: str, dtype: torch.dtype) -> None:
    found = detection(op, dtype, op_case(op).quick_shapes[:1])
    assert found.total >= 20
    assert found.rate >= ENOUGH, found.missed


@pytest.mark.parametrize("op", QUICK)
def test_the_plain_order_is_caught_by_nothing(op: str) -> None:
    """Else a twin would be caught for what it shares with a sound kernel."""
    case = op_case(op)
    kernel = Kernel("test", op, PLAIN, lambda i, p: compute(op, i, p, PLAIN), DTYPES)
    with thread_count(1):
        for kind in {order_of_power(case.kinds)[0], NORMAL}:
            trial = Trial(case.quick_shapes[0], torch.float32, kind, 0, 17)
            assert not search(kernel, case, trial).mismatches


def test_attention() -> None:
    found = detection("attention", torch.bfloat16, (Shape(100, 64),))
    assert found.rate >= ENOUGH, found.missed


def test_the_twins_run_with_one_thread_however_many_are_checked() -> None:
    with thread_count(2):
        found = detection("mean", torch.float32, (Shape(64),))
        assert torch.get_num_threads() == 2
    assert found == detection("mean", torch.float32, (Shape(64),))
    assert found.rate == 1


def test_normal_values_in_bf16_would_miss_what_chosen_rows_show() -> None:
    """Why the inputs are constructed: a norm's rounding hides what the order changes."""
    case = op_case("rms_norm")
    kernel = Twin("reverse", "position").kernel("rms_norm")

    def caught(kind: str) -> bool:
        trial = Trial(Shape(576), torch.bfloat16, kind, 0, 33)
        return bool(search(kernel, case, trial, only=("position", "batch_size")).mismatches)

    assert not caught(NORMAL)
    assert caught("sensitive")
