"""A planted fault is a fault of the order, not of the arithmetic: results stay near the truth."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.twins.oracles import is_close
from driftscope_kernels.registry import Kernel, kernels

#: Adds bit patterns.
WRONG = ("raw_bit_add",)
PLANTED = list(planted.kernels())


@pytest.mark.parametrize("kernel", PLANTED, ids=lambda kernel: kernel.name)
def test_near_the_oracle_unless_meant_to_be_wrong(kernel: Kernel) -> None:
    case = op_case(kernel.op)
    assert case.oracle is not None
    dtype = torch.bfloat16
    batch = case.build(case.quick_shapes[0], 3, dtype, "normal", 0)
    oracle = case.oracle(batch.inputs, batch.params)
    near = bool(is_close(kernel.run(batch.inputs, batch.params), oracle).all())
    assert near == (kernel.implementation not in WRONG)


def test_none_of_them_is_offered_to_users() -> None:
    assert not {kernel.target for kernel in kernels()} & {planted.TARGET}
