"""The axis "fresh_process": this process against fresh ones, for all kernels of a check at once.

In: (kernel, dtype, threads) of a check. Out: for each the count and the first mismatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.check.axes import FRESH_PROCESS, fresh_processes
from driftscope_kernels.check.case import OpCase, Subject
from driftscope_kernels.check.fresh_process import fresh_results
from driftscope_kernels.check.inputs import ABSORBING, CANCELLING, NORMAL
from driftscope_kernels.check.op_cases import op_case
from driftscope_kernels.check.placement import REFUSALS, Placement, run, thread_count
from driftscope_kernels.check.search import AxisCount, Mismatch, Trial, first_mismatch
from driftscope_kernels.check.verdict import call_spec
from driftscope_kernels.registry import Kernel

#: A process state reaches every row alike: a few of them, of the smallest shape, show it.
ROWS = 9
#: The first of these that the op has: constructed, but quickly, for every process makes its own.
KINDS = (CANCELLING, ABSORBING, NORMAL)

Work = tuple[Kernel, torch.dtype, int]


@dataclass(frozen=True, slots=True)
class ProcessFinding:
    count: AxisCount
    mismatch: Mismatch | None


def check_processes(work: Sequence[Work], seed: int) -> list[ProcessFinding]:
    """One finding per piece of work, in order."""
    calls = [
        (number, trial, placement)
        for number, (kernel, dtype, _) in enumerate(work)
        for trial in _trials(op_case(kernel.op), dtype, seed)
        for placement in fresh_processes(trial.rows)
    ]
    specs = [
        call_spec(subject_of(*work[number]), FRESH_PROCESS, trial, Placement(trial.rows), placement)
        for number, trial, placement in calls
    ]
    results = fresh_results(specs) if specs else []
    trials, missing = [0] * len(work), [0] * len(work)
    found: list[Mismatch | None] = [None] * len(work)
    for (number, trial, placement), result in zip(calls, results, strict=True):
        trials[number] += 1
        if result is None:
            missing[number] += 1
        elif found[number] is None:
            kernel, _, threads = work[number]
            with thread_count(threads):
                found[number] = _compare(kernel, trial, placement, result)
    return [
        ProcessFinding(
            AxisCount(
                FRESH_PROCESS, trials[number], int(found[number] is not None), missing[number]
            ),
            found[number],
        )
        for number in range(len(work))
    ]


def replay_process(
    kernel: Kernel, subject: Subject, trial: Trial, right: Placement
) -> Mismatch | None:
    spec = call_spec(subject, FRESH_PROCESS, trial, Placement(trial.rows), right)
    (result,) = fresh_results([spec])
    return None if result is None else _compare(kernel, trial, right, result)


def subject_of(kernel: Kernel, dtype: torch.dtype, threads: int) -> Subject:
    return Subject(kernel.target, kernel.op, kernel.implementation, dtype, threads)


def _trials(case: OpCase, dtype: torch.dtype, seed: int) -> list[Trial]:
    rows = min(ROWS, case.most_rows or ROWS)
    kind = next(kind for kind in KINDS if kind in case.kinds)
    return [Trial(case.quick_shapes[0], dtype, kind, seed, rows)]


def _compare(kernel: Kernel, trial: Trial, right: Placement, results: Tensor) -> Mismatch | None:
    plain = Placement(trial.rows)
    try:
        ours = run(kernel, trial.batch(op_case(kernel.op)), plain)
    except REFUSALS:
        return None  # the check of the kernel itself reports it
    for theirs in results:
        sides = ((plain, ours), (right, theirs))
        found = first_mismatch(FRESH_PROCESS, trial, *sides, range(trial.rows))
        if found is not None:
            return found
    return None
