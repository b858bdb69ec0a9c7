"""A fingerprint of what a kernel computes: equal between two nights if no bit of it changed.

In: kernel, dtype, seed of the inputs. Out: a hash of its results for one row and for several.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from driftscope_kernels.check.cases.case import OpCase
from driftscope_kernels.check.cases.inputs import NORMAL
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.placement import REFUSALS, Placement, run
from driftscope_kernels.check.search import Trial
from driftscope_kernels.compare_bits import bits
from driftscope_kernels.registry import Kernel

#: One row, for which libraries have ways of its own, and enough that none of them is taken.
ROWS = (1, 9)


def result_bits(kernel: Kernel, dtype: torch.dtype, seed: int) -> str | None:
    """At the current number of threads. None: the kernel refuses its inputs.

    The least work that shows a change: the quick shapes, plain inputs, no other layout.
    """
    case = op_case(kernel.op)
    whole = hashlib.sha256()
    try:
        for shape in case.quick_shapes:
            for rows in ROWS:
                trial = Trial(shape, dtype, NORMAL, seed, min(rows, case.most_rows or rows))
                whole.update(_bytes(_result(kernel, case, trial)))
    except REFUSALS:
        return None  # the check of the kernel itself reports it
    return whole.hexdigest()


def _result(kernel: Kernel, case: OpCase, trial: Trial) -> Tensor:
    return run(kernel, trial.batch(case), Placement(trial.rows))


def _bytes(result: Tensor) -> bytes:
    return bits(result.detach()).numpy().tobytes()
