"""Whether the search finds what was planted, and the smallest case of what it found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter

import torch

from driftscope_kernels.check.cases.case import CANCELLING, SENSITIVE, OpCase, Shape
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.axes import (
    DENSE_SIZES,
    EDGE_SIZES,
    FRESH_PROCESS,
    QUICK_ROWS,
)
from driftscope_kernels.check.placements.placement import Placement, thread_count
from driftscope_kernels.check.search import (
    ACCURACY,
    PROBE,
    Mismatch,
    Trial,
    compare,
    search,
    wrong_rows,
)
from driftscope_kernels.check.twins.reassociated import twins
from driftscope_kernels.registry import Kernel

#: Below this share, that nothing was found says too little.
ENOUGH = 0.95
#: The axes on which every trigger of the twins can show.
AXES = ("batch_size", "position", "split", "micro_batch")


@dataclass(frozen=True, slots=True)
class Detection:
    caught: int
    total: int
    missed: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.caught / self.total


@lru_cache(maxsize=256)
def detection(op: str, dtype: torch.dtype, shapes: tuple[Shape, ...]) -> Detection:
    """Every twin at every shape. With one thread: a twin's order does not follow their number, and
    two teams on busy cores are ten times slower.
    """
    with thread_count(1):
        return _detection(op, dtype, shapes)


def _detection(op: str, dtype: torch.dtype, shapes: tuple[Shape, ...]) -> Detection:
    case = op_case(op)
    rows = min(QUICK_ROWS, case.most_rows or QUICK_ROWS)
    missed: list[str] = []
    total = 0
    for shape in shapes:
        for twin in twins():
            total += 1
            kernel = twin.kernel(op)
            trials = [Trial(shape, dtype, kind, 0, rows) for kind in order_of_power(case.kinds)]
            if not any(
                search(kernel, case, trial, only=AXES, stop_at_first=True).mismatches
                for trial in trials
            ):
                missed.append(f"{twin.association}, {twin.trigger}, K={shape.k}")
    return Detection(total - len(missed), total, tuple(missed))


def order_of_power(kinds: Sequence[str]) -> list[str]:
    """The constructed ones first: they find at once what the others find rarely."""
    return sorted(kinds, key=lambda kind: kind not in (CANCELLING, SENSITIVE))


#: Seconds that one counterexample may take; what is found by then is what is reported.
BUDGET_S = 4.0
#: Other random values are tried before a smaller shape counts as free of the difference.
SEEDS = (0, 1, 2)
#: A sum of fewer than three terms has one order only.
LEAST_K = 2


class Shrinking:
    """Keeps the smallest mismatch found; every attempt makes its inputs anew."""

    def __init__(self, kernel: Kernel, case: OpCase, found: Mismatch, budget_s: float) -> None:
        self.kernel, self.case, self.found = kernel, case, found
        self.deadline = perf_counter() + budget_s

    def attempt(self, shape: Shape, left: Placement, right: Placement) -> bool:
        """Whether the difference shows here too; if so it becomes `found`."""
        if perf_counter() > self.deadline:
            return False
        rows = max(side.start + side.count for side in (left, right))
        for kind in self._kinds():
            for seed in SEEDS if kind != PROBE else (self.found.trial.seed,):
                trial = Trial(shape, self.found.trial.dtype, kind, seed, rows)
                mismatch = self._mismatch(trial, left, right)
                if mismatch is not None:
                    self.found = mismatch
                    return True
        return False

    def _mismatch(self, trial: Trial, left: Placement, right: Placement) -> Mismatch | None:
        if self.found.axis == ACCURACY:
            return wrong_rows(self.kernel, self.case, trial)
        batch = trial.batch(self.case)
        return compare(self.kernel, batch, self.found.axis, trial, left, right)

    def _kinds(self) -> list[str]:
        own = self.found.trial.kind
        if own == PROBE:
            return [PROBE]
        return list(dict.fromkeys([own, *order_of_power(self.case.kinds)[:1]]))

    def fewer_rows(self) -> None:
        for left, right in _smaller_placements(self.found):
            if self.attempt(self.found.trial.shape, left, right):
                return

    def smaller(self, name: str, least: int) -> None:
        """Take away halves, quarters, … down to one, as long as the difference stays."""
        size: int = getattr(self.found.trial.shape, name)
        step = (size - least) // 2
        while step >= 1:
            shape = replace(self.found.trial.shape, **{name: size - step})
            if size - step >= least and self.attempt(shape, self.found.left, self.found.right):
                size -= step
            else:
                step //= 2


def shrink(
    kernel: Kernel, case: OpCase, found: Mismatch, *, budget_s: float = BUDGET_S
) -> Mismatch:
    """1-minimal in each of rows, k and n, unless the time runs out."""
    if found.axis == FRESH_PROCESS:  # small already, and every attempt would start a process
        return found
    shrinking = Shrinking(kernel, case, found, budget_s)
    shrinking.fewer_rows()
    if found.trial.kind != PROBE:  # its question is one of the original shape
        shrinking.smaller("k", max(LEAST_K, found.right.query or 0, found.right.context or 0))
        shrinking.smaller("n", case.least_n)
        shrinking.fewer_rows()
    return shrinking.found


def _smaller_placements(found: Mismatch) -> Iterator[tuple[Placement, Placement]]:
    """Pairs with fewer rows than now, smallest first."""
    left, right = found.left, found.right
    sizes = [size for size in (*DENSE_SIZES, *EDGE_SIZES) if size < left.count]
    if found.axis == "batch_size":
        for size in sizes:
            if size > right.count:
                yield replace(left, count=size), right
        return
    for size in sizes:
        # Two positions in a batch are compared where they overlap.
        fits = (right.kept is None or right.kept < size) and abs(right.start - left.start) < size
        if fits and (right.chunk is None or right.chunk < size):
            yield replace(left, count=size), replace(right, count=size)
