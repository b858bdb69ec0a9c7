"""torch's kernels behind the checker's signature compute what they should."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.twins.oracles import is_close
from driftscope_kernels.registry import Kernel
from driftscope_kernels.targets import torch_ops

EAGER = [kernel for kernel in torch_ops.kernels() if kernel.implementation == "eager"]


@pytest.mark.parametrize("kernel", EAGER, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_near_the_oracle(kernel: Kernel, dtype: torch.dtype) -> None:
    case = op_case(kernel.op)
    batch = case.build(case.quick_shapes[0], 3, dtype, "normal", 0)
    assert case.oracle is not None
    oracle = case.oracle(batch.inputs, batch.params)
    assert is_close(kernel.run(batch.inputs, batch.params), oracle).all()


def test_compiled_variants_are_there_where_a_compiler_is() -> None:
    compiled = {k.op for k in torch_ops.kernels() if k.implementation == "compiled"}
    missing = torch_ops.missing_compiler()
    assert compiled == (set(torch_ops.COMPILED) if missing is None else set())


def test_without_a_compiler_they_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "compiler" in (torch_ops.missing_compiler() or "")
    assert all(kernel.implementation == "eager" for kernel in torch_ops.kernels())
