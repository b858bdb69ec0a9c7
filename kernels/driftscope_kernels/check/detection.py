"""How much the value tests would have seen: the share of planted twins that the same inputs and
axes catch. In: op, dtype, shapes. Out: Detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from driftscope_kernels.check.cases.case import Shape
from driftscope_kernels.check.cases.inputs import CANCELLING, SENSITIVE
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.axes import QUICK_ROWS
from driftscope_kernels.check.placements.placement import thread_count
from driftscope_kernels.check.search import Trial, search
from driftscope_kernels.check.twins.reassociated import twins

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
