"""Each kind of values has the property that it is made for."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check.cases import case as kinds
from driftscope_kernels.check.cases.op_cases import OP_CASES, UnknownOpError, op_case
from driftscope_kernels.check.twins.oracles import is_close
from driftscope_kernels.check.twins.ordered_ops import PLAIN
from driftscope_kernels.check.twins.reassociated import compute

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cancelling_rows_sum_to_nothing(dtype: torch.dtype) -> None:
    x = kinds.cancelling(5, 100, dtype, _generator()).double()
    weight = kinds.paired(3, 100, dtype, _generator()).double()
    assert x.sum(1).abs().max() == 0
    assert (x @ weight.T).abs().max() < 1e-9 * (x.abs() @ weight.abs().T).max()
    assert x.abs().min() < 1e-1 < 1e1 < x.abs().max()


def test_small_terms_vanish_in_a_sum_that_has_met_the_large_one() -> None:
    x = kinds.absorbing(1, 100, 1.0, kinds.ABSORBED_TERM, torch.float32)[0]
    forward = torch.tensor(0.0)
    for term in x:
        forward = forward + term
    backward = torch.tensor(0.0)
    for term in x.flip(0):
        backward = backward + term
    assert forward == 1
    assert backward > 1


def test_activations_are_captured_ones() -> None:
    values = kinds.values(kinds.ACTIVATIONS, 17, 576, torch.bfloat16, _generator())
    assert values.shape == (17, 576)
    # Far from normal: a few channels carry most of the range.
    assert values.float().abs().max() > 8 * values.float().abs().mean()


@pytest.mark.parametrize("op", OP_CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_every_op_is_the_same_each_time(op: str, dtype: torch.dtype) -> None:
    case = op_case(op)
    shape = case.quick_shapes[0]
    for kind in case.kinds:
        first, again = (case.build(shape, 5, dtype, kind, 3) for _ in range(2))
        for name, tensor in first.inputs.items():
            assert torch.equal(tensor, again.inputs[name]), (kind, name)
        assert all(len(first.inputs[name]) == 5 for name in first.row_inputs)
        # The rows of a weight gradient are those of the weight: no input is cut along them.
        assert ("x" in first.row_inputs) != case.micro_batches


@pytest.mark.parametrize("op", OP_CASES)
def test_the_plain_order_is_near_the_oracle(op: str) -> None:
    case = op_case(op)
    assert case.oracle is not None
    for dtype in DTYPES:
        batch = case.build(case.quick_shapes[0], 3, dtype, kinds.NORMAL, 0)
        result = compute(op, batch.inputs, batch.params, PLAIN)
        oracle = case.oracle(batch.inputs, batch.params)
        assert is_close(result, oracle).all()
        # Half of what the terms come to without their signs: no rounding explains that.
        wrong = (result.double() + oracle.scale / 2).to(result.dtype)
        assert not is_close(wrong, oracle).all()


def test_an_unknown_op_is_named() -> None:
    with pytest.raises(UnknownOpError, match="convolution.*linear"):
        op_case("convolution")
