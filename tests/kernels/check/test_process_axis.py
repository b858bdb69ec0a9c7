"""Fresh processes: a fault of the process is seen, and what cannot run in them is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.detection import shrink
from driftscope_kernels.check.placements.axes import FRESH_PROCESS
from driftscope_kernels.check.placements.placement import Placement, thread_count
from driftscope_kernels.check.process_axis import check_processes
from driftscope_kernels.check.run_check import replay
from driftscope_kernels.check.verdict import cause
from driftscope_kernels.registry import Kernel
from driftscope_kernels.targets import driftscope

FAULT = next(k for k in planted.kernels() if k.implementation == planted.OF_PROCESS)
SOUND = next(k for k in driftscope.kernels() if k.name == "driftscope/linear/reference")


def _stranger(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    return inputs["x"] @ inputs["weight"].T


@pytest.mark.slow
def test_one_call_per_process_serves_all_kernels() -> None:
    stranger = Kernel("test", "linear", "of_this_process", _stranger, frozenset({torch.float32}))
    work = [(kernel, torch.float32, 1) for kernel in (FAULT, SOUND, stranger)]
    fault, sound, unknown = check_processes(work, 0)
    assert fault.mismatch is not None
    assert fault.mismatch.axis == FRESH_PROCESS
    assert sound.mismatch is None
    assert (sound.count.trials, sound.count.refused) == (2, 0)
    assert (unknown.count.refused, unknown.mismatch) == (2, None)


@pytest.mark.slow
def test_it_is_replayed_as_found_and_named() -> None:
    (finding,) = check_processes([(FAULT, torch.bfloat16, 1)], 0)
    found = finding.mismatch
    assert found is not None
    case = op_case("linear")
    assert shrink(FAULT, case, found) == found
    assert cause(FAULT, case, found).name == "process state"
    side = Placement.from_dict(found.right.to_dict())
    with thread_count(1):
        again = replay(FAULT, FRESH_PROCESS, found.trial, found.left, side)
    assert again is not None
    assert again.difference == found.difference
