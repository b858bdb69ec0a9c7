"""The whole check of one kernel after the other: values, trees, detection rate, verdict.

In: kernels, a Plan. Out: Report (its `to_dict` is what `kernels check --json` prints).
"""

from __future__ import annotations

import os
import timeit
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.case import (
    CANCELLING,
    DTYPE_NAMES,
    NORMAL,
    SENSITIVE,
    OpCase,
    Subject,
)
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.detection import ENOUGH, detection, order_of_power, shrink
from driftscope_kernels.check.placements.axes import (
    AXES,
    BATCH_SIZE,
    FRESH_PROCESS,
    FULL_ROWS,
    QUICK_ROWS,
)
from driftscope_kernels.check.placements.placement import REFUSALS, Placement, run, thread_count
from driftscope_kernels.check.process_axis import (
    ProcessFinding,
    check_processes,
    replay_process,
    subject_of,
)
from driftscope_kernels.check.search import (
    ACCURACY,
    PROBE,
    AxisCount,
    Mismatch,
    Trial,
    compare,
    search,
    wrong_rows,
)
from driftscope_kernels.check.static.static_kernels import (
    StaticKernel,
    StaticKernelVerdict,
    read_static,
)
from driftscope_kernels.check.tree_probe import (
    SCOPE,
    WHOLE_PROOF,
    TreeReading,
    can_read,
    read_trees,
)
from driftscope_kernels.check.verdict import LAYOUT_AXIS, Counterexample, KernelVerdict, cause
from driftscope_kernels.options import VerdictName
from driftscope_kernels.registry import Kernel

#: What is checked of a kernel that is slower than its case allows: a plain reference in Python is
#: a thousand times slower than what it is the reference for.
SLOW_ROWS = 9
SLOW_KINDS = (NORMAL, CANCELLING, SENSITIVE)
#: What is tried with a planted fault: enough to refute it.
PLANTED_ROWS = 33

Tell = Callable[[str, float], None]  # what is being checked, fraction of the whole


@dataclass(frozen=True, slots=True)
class Plan:
    dtypes: tuple[torch.dtype, ...] = tuple(DTYPE_NAMES)
    threads: tuple[int, ...] = (1,)
    quick: bool = False
    seed: int = 0
    axes: frozenset[str] | None = None  # of AXES, FRESH_PROCESS and ACCURACY; None: all, and proofs

    def wants(self, axis: str) -> bool:
        return self.axes is None or axis in self.axes


@dataclass(frozen=True, slots=True)
class PlantedResult:
    caught: int
    total: int
    missed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"caught": self.caught, "total": self.total, "missed": list(self.missed)}


@dataclass(frozen=True, slots=True)
class Report:
    verdicts: tuple[KernelVerdict | StaticKernelVerdict, ...]
    planted: PlantedResult

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "planted": self.planted.to_dict(),
        }


def run_check(
    kernels: Iterable[Kernel], plan: Plan, tell: Tell, static: Iterable[StaticKernel] = ()
) -> Report:
    """Check every kernel at every dtype and number of threads, read the compiled ones, then the
    planted faults.
    """
    work = [
        (kernel, dtype, threads)
        for kernel in kernels
        for dtype in plan.dtypes
        for threads in plan.threads
        if dtype in kernel.dtypes and (kernel.threaded or threads == plan.threads[0])
    ]
    processes: Sequence[ProcessFinding | None] = [None] * len(work)
    if plan.wants(FRESH_PROCESS):
        tell("fresh processes", 0.0)
        processes = check_processes(work, plan.seed)
    verdicts: list[KernelVerdict | StaticKernelVerdict] = []
    for number, (kernel, dtype, threads) in enumerate(work):
        tell(f"{kernel.name} {DTYPE_NAMES[dtype]}, threads {threads}", number / (len(work) + 1))
        with thread_count(threads):
            verdicts.append(check_kernel(kernel, dtype, plan, processes[number]))
    tell("compiled code, planted faults", len(work) / (len(work) + 1))
    # What is read of compiled code is whether it is the same for every batch size.
    chosen = static if plan.wants(BATCH_SIZE) else ()
    read, faults = read_static(chosen, plan.dtypes, quick=plan.quick)
    ops = {kernel.op for kernel, _, _ in work}
    return Report((*verdicts, *read), _with_static(check_planted(plan, ops), faults))


def check_kernel(
    kernel: Kernel, dtype: torch.dtype, plan: Plan, process: ProcessFinding | None = None
) -> KernelVerdict:
    """At the current number of threads. `process`: what fresh processes gave, where asked."""
    began = perf_counter()
    case = op_case(kernel.op)
    subject = subject_of(kernel, dtype, torch.get_num_threads())
    try:
        return _Check(kernel, case, dtype, plan, subject, process, began).verdict()
    except REFUSALS as error:
        text = str(error).splitlines()[0] if str(error) else ""
        reason = f"the kernel raised {type(error).__name__}: {text}"
        return KernelVerdict(
            subject, "INCONCLUSIVE", reason, None, None, (), (), (), 0, perf_counter() - began
        )


class _Check:
    """The steps of one check share kernel, case and dtype; nothing else."""

    def __init__(
        self,
        kernel: Kernel,
        case: OpCase,
        dtype: torch.dtype,
        plan: Plan,
        subject: Subject,
        process: ProcessFinding | None,
        began: float,
    ) -> None:
        self.kernel, self.case, self.dtype = kernel, case, dtype
        self.plan, self.subject, self.process, self.began = plan, subject, process, began
        # With several threads small shapes: two teams on busy cores are ten times slower.
        quick = plan.quick or subject.threads > 1
        self.shapes = case.quick_shapes if quick else case.shapes
        self.rows = min(QUICK_ROWS if quick else FULL_ROWS, case.most_rows or FULL_ROWS)
        self.kinds = case.kinds
        if self._is_slow():
            self.shapes, self.rows = case.quick_shapes[:1], min(self.rows, SLOW_ROWS)
            self.kinds = tuple(kind for kind in case.kinds if kind in SLOW_KINDS)

    def _is_slow(self) -> bool:
        trial = Trial(self.case.quick_shapes[-1], self.dtype, NORMAL, 0, min(self.rows, SLOW_ROWS))
        batch = trial.batch(self.case)
        plain = Placement(trial.rows)
        run(self.kernel, batch, plain)  # the first call may build or pack
        # The least of several: another process's time is not the kernel's.
        seconds = min(timeit.repeat(lambda: run(self.kernel, batch, plain), number=1, repeat=3))
        return seconds > self.case.slow_call_s

    def verdict(self) -> KernelVerdict:
        counts, mismatches = self._value_tests()
        if self.process is not None:
            counts += (self.process.count,)
            mismatches += [] if self.process.mismatch is None else [self.process.mismatch]
        if mismatches:
            return self._refuted(min(mismatches, key=_importance), counts)
        if self.plan.axes is not None:
            return self._on_axes(self.plan.axes, counts)
        readings = tuple(self._readings())
        other = next((reading for reading in readings if reading.equal is False), None)
        if other is not None:
            return self._refuted(self._probe_mismatch(other), counts)
        rate = detection(self.case.op, self.dtype, self.case.quick_shapes)
        proofs = tuple(reading for reading in readings if reading.equal)
        if len(proofs) == len(self.shapes) and SCOPE[self.case.op] == WHOLE_PROOF:
            name: VerdictName = "PROVED"
            reason = "one reduction tree for all batch sizes and rows probed"
        elif rate.rate >= ENOUGH:
            name = "NOT_REFUTED"
            trials = sum(count.trials for count in counts)
            reason = f"no difference in {trials} comparisons"
        else:
            name = "INCONCLUSIVE"
            reason = f"the tests catch {rate.rate:.0%} of planted twins, less than {ENOUGH:.0%}"
        return KernelVerdict(
            subject=self.subject,
            verdict=name,
            reason=reason,
            detection=rate,
            counterexample=None,
            proofs=proofs,
            axes=counts,
            shapes=self.shapes,
            rows=self.rows,
            seconds=perf_counter() - self.began,
        )

    def _on_axes(self, axes: frozenset[str], counts: tuple[AxisCount, ...]) -> KernelVerdict:
        """Nothing differs on the axes asked for. Proofs and detection rates are of all of them."""
        compared = sum(count.trials - count.refused for count in counts)
        names = ", ".join(sorted(axes))
        name: VerdictName = "NOT_REFUTED" if compared else "INCONCLUSIVE"
        reason = f"nothing is compared on {names}: this op or number of threads has no such axis"
        if compared:
            reason = (
                f"no difference in {compared} comparisons on {names}; other axes were not tried"
            )
        return KernelVerdict(
            subject=self.subject,
            verdict=name,
            reason=reason,
            detection=None,
            counterexample=None,
            proofs=(),
            axes=counts,
            shapes=self.shapes,
            rows=self.rows,
            seconds=perf_counter() - self.began,
        )

    def _value_tests(self) -> tuple[tuple[AxisCount, ...], list[Mismatch]]:
        totals: dict[str, Counter[str]] = {}
        mismatches: list[Mismatch] = []
        for trial in self._trials():
            found = search(self.kernel, self.case, trial, only=self.plan.axes)
            mismatches += found.mismatches
            tried = found.counts
            if self.plan.wants(ACCURACY):
                wrong = wrong_rows(self.kernel, self.case, trial)
                mismatches += [] if wrong is None else [wrong]
                tried += (AxisCount(ACCURACY, 1, int(wrong is not None)),)
            for count in tried:
                total = totals.setdefault(count.axis, Counter())
                total["trials"] += count.trials
                total["mismatches"] += count.mismatches
                total["refused"] += count.refused
        return tuple(AxisCount(axis, **dict(total)) for axis, total in totals.items()), mismatches

    def _trials(self) -> Iterator[Trial]:
        for shape in self.shapes:
            for kind in self.kinds:
                yield Trial(shape, self.dtype, kind, self.plan.seed, self.rows)

    def _readings(self) -> Iterator[TreeReading]:
        if not can_read(self.case.op, self.dtype):
            return
        for shape in self.shapes:
            params = self.case.build(shape, 1, self.dtype, NORMAL, 0).params
            yield read_trees(self.kernel, self.case.op, shape, self.dtype, params, self.rows)

    def _probe_mismatch(self, reading: TreeReading) -> Mismatch:
        """The same difference as a counterexample: the probe's own inputs show it."""
        assert reading.where is not None
        size, row, question = reading.where
        trial = Trial(reading.shape, self.dtype, PROBE, question, self.rows)
        batch = trial.batch(self.case)
        whole = Placement(self.rows)
        pairs: tuple[tuple[str, Placement, Placement], ...] = (
            ("batch_size", whole, Placement(size)),
            ("position", whole, Placement(self.rows, shuffle=1)),
        )
        if self.case.micro_batches:
            pairs = (("micro_batch", whole, Placement(self.rows, micro_batch=size)),)
        for axis, left, right in pairs:
            found = compare(self.kernel, batch, axis, trial, left, right)
            if found is not None:
                return found
        raise AssertionError(f"{self.kernel.name}: row {row} of {size} read twice, once otherwise")

    def _refuted(self, found: Mismatch, counts: tuple[AxisCount, ...]) -> KernelVerdict:
        why = cause(self.kernel, self.case, found)
        smallest = shrink(self.kernel, self.case, found)
        counterexample = Counterexample(self.subject, smallest, why, found.trial.shape)
        differing = {count.axis for count in counts if count.mismatches}
        reason = f"{why.name}: {why.evidence}"
        if differing == {LAYOUT_AXIS} and self.plan.axes is None:
            reason += "; no other axis differs, so that the bits do not depend on the batch"
        return KernelVerdict(
            subject=self.subject,
            verdict="REFUTED",
            reason=reason,
            remedy=why.remedy,
            detection=None,
            counterexample=counterexample,
            proofs=(),
            axes=counts,
            shapes=self.shapes,
            rows=self.rows,
            seconds=perf_counter() - self.began,
        )


def _importance(found: Mismatch) -> tuple[int, int, int]:
    """The batch before all else, then the smallest shape, then values that occur."""
    order = [*AXES, FRESH_PROCESS, ACCURACY]
    return order.index(found.axis), found.trial.shape.k, int(found.trial.kind != NORMAL)


def check_planted(plan: Plan, ops: Iterable[str] | None = None) -> PlantedResult:
    """Every planted fault, at every dtype of the plan, in the smallest check that must see it."""
    wanted = None if ops is None else set(ops)
    work = [
        (kernel, dtype, 1)
        for kernel in planted.kernels()
        for dtype in plan.dtypes
        if dtype in kernel.dtypes and (wanted is None or kernel.op in wanted)
    ]
    elsewhere = [one for one in work if one[0].implementation == planted.OF_PROCESS]
    findings = check_processes(elsewhere, plan.seed)
    missed = [one for one, found in zip(elsewhere, findings, strict=True) if not found.mismatch]
    for kernel, dtype, threads in work:
        if kernel.implementation == planted.OF_PROCESS:
            continue
        # A split over threads shows with two of them only.
        with thread_count(2 if kernel.implementation == "thread_split" else threads):
            if not _is_refuted(kernel, dtype, plan.seed):
                missed.append((kernel, dtype, threads))
    names = (f"{k.op}/{k.implementation} {DTYPE_NAMES[dtype]}" for k, dtype, _ in missed)
    return PlantedResult(len(work) - len(missed), len(work), tuple(names))


def _with_static(found: PlantedResult, faults: Mapping[str, bool]) -> PlantedResult:
    missed = tuple(name for name, refuted in faults.items() if not refuted)
    caught = found.caught + len(faults) - len(missed)
    return PlantedResult(caught, found.total + len(faults), (*found.missed, *missed))


def _is_refuted(kernel: Kernel, dtype: torch.dtype, seed: int) -> bool:
    case = op_case(kernel.op)
    rows = min(PLANTED_ROWS, case.most_rows or PLANTED_ROWS)
    for shape in case.quick_shapes:
        for kind in order_of_power(case.kinds):
            trial = Trial(shape, dtype, kind, seed, rows)
            if wrong_rows(kernel, case, trial) is not None:
                return True
            if search(kernel, case, trial, stop_at_first=True).mismatches:
                return True
    return False


def default_threads() -> tuple[int, ...]:
    """One thread, and two where there are two cores: most splits over threads show with two."""
    return (1, 2) if (os.cpu_count() or 1) > 1 else (1,)


def replay(
    kernel: Kernel, axis: str, trial: Trial, left: Placement, right: Placement
) -> Mismatch | None:
    """Make the two calls of a counterexample again."""
    case = op_case(kernel.op)
    if axis == ACCURACY:
        return wrong_rows(kernel, case, trial)
    if right.process is not None:
        subject = subject_of(kernel, trial.dtype, torch.get_num_threads())
        return replay_process(kernel, subject, trial, right)
    return compare(kernel, trial.batch(case), axis, trial, left, right)
