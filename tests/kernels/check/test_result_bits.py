"""The fingerprint is the same every time, and another as soon as one bit is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.check.cases.op_cases import OP_CASES
from driftscope_kernels.check.process_axis import result_bits
from driftscope_kernels.compare_bits import bits
from driftscope_kernels.registry import Kernel
from driftscope_kernels.targets.driftscope import kernels as our_kernels

OURS = {kernel.op: kernel for kernel in our_kernels() if kernel.implementation == "cpu"}


@pytest.mark.parametrize("op", sorted(OURS.keys() & OP_CASES.keys()))
def test_twice_the_same_and_another_with_one_bit_flipped(op: str) -> None:
    kernel = OURS[op]

    def flipped(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        result = kernel.run(inputs, params).detach().clone()
        # The last bit of one element, and only where there is a single row.
        if len(result) == 1:
            bits(result).reshape(-1)[-1] ^= 1
        return result

    found = result_bits(kernel, torch.bfloat16, 0)
    assert found is not None and found == result_bits(kernel, torch.bfloat16, 0)
    assert result_bits(replace(kernel, run=flipped), torch.bfloat16, 0) != found
    assert result_bits(kernel, torch.bfloat16, 1) != found


def test_a_kernel_that_refuses_has_none() -> None:
    def refuses(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        raise NotImplementedError

    kernel = Kernel("acme", "mean", "none", refuses, frozenset({torch.float32}))
    assert result_bits(kernel, torch.float32, 0) is None
