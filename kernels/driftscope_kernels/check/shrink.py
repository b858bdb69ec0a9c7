"""Makes a counterexample small: fewest rows, then shortest reduction, then fewest outputs.

In: kernel, case, Mismatch. Out: the smallest Mismatch on the same axis that was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from driftscope_kernels.check.cases.case import OpCase, Shape
from driftscope_kernels.check.detection import order_of_power
from driftscope_kernels.check.placements.axes import DENSE_SIZES, EDGE_SIZES, FRESH_PROCESS
from driftscope_kernels.check.placements.placement import Placement
from driftscope_kernels.check.search import ACCURACY, PROBE, Mismatch, Trial, compare, wrong_rows
from driftscope_kernels.registry import Kernel

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
