"""Looks for a row whose bits depend on its placement. In: kernel, case, trial. Out: Findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.check.cases import case as kinds
from driftscope_kernels.check.cases.case import OpCase, Shape
from driftscope_kernels.check.placements.axes import SAME_SIZE, axes
from driftscope_kernels.check.placements.placement import REFUSALS, Batch, Placement, run
from driftscope_kernels.check.tree_probe import probe_batch, probe_questions
from driftscope_kernels.check.twins.oracles import is_close
from driftscope_kernels.compare_bits import Difference, differing_rows, first_difference
from driftscope_kernels.registry import Kernel

ACCURACY = "accuracy"
PROBE = "tree_probe"


@dataclass(frozen=True, slots=True)
class Trial:
    """Which inputs; every value is in JSON, so that they can be made again."""

    shape: Shape
    dtype: torch.dtype
    kind: str
    seed: int
    rows: int  # size of the whole batch that the inputs are made for

    def batch(self, case: OpCase) -> Batch:
        """The inputs; of kind PROBE, those of the tree probe's question number `seed`."""
        if self.kind == PROBE:
            params = case.build(self.shape, 1, self.dtype, kinds.NORMAL, 0).params
            question = probe_questions(case.op, self.shape, self.dtype)[self.seed]
            return probe_batch(case.op, self.shape, self.dtype, params, question, self.rows)
        return case.build(self.shape, self.rows, self.dtype, self.kind, self.seed)


@dataclass(frozen=True, slots=True)
class Mismatch:
    axis: str
    trial: Trial
    left: Placement
    right: Placement
    row: int  # index in the whole batch
    difference: Difference
    rows_differ: int
    rows_compared: int


@dataclass(frozen=True, slots=True)
class AxisCount:
    axis: str
    trials: int
    mismatches: int
    refused: int = 0  # layouts that the kernel does not take

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Findings:
    counts: tuple[AxisCount, ...]
    mismatches: tuple[Mismatch, ...]  # the first of every axis


def search(
    kernel: Kernel,
    case: OpCase,
    trial: Trial,
    *,
    only: Iterable[str] | None = None,
    stop_at_first: bool = False,
) -> Findings:
    """Compare all placements of all axes (or those of `only`) with the plain call."""
    batch = trial.batch(case)
    bases: dict[int, Tensor] = {}
    counts: list[AxisCount] = []
    found: list[Mismatch] = []
    for axis, placements in placements_of(case, trial).items():
        if only is not None and axis not in only:
            continue
        mismatches, refused = 0, 0
        for placement in placements:
            plain = Placement(placement.count if axis in SAME_SIZE else trial.rows)
            if plain.count not in bases:
                bases[plain.count] = run(kernel, batch, plain)
            base = bases[plain.count]
            try:
                mismatch = compare(kernel, batch, axis, trial, plain, placement, base=base)
            except REFUSALS:
                if axis != "layout":
                    raise
                refused += 1
                continue
            if mismatch is not None:
                found += [mismatch] if mismatches == 0 else []
                mismatches += 1
                if stop_at_first:
                    return Findings((), tuple(found))
        counts.append(AxisCount(axis, len(placements), mismatches, refused))
    return Findings(tuple(counts), tuple(found))


def placements_of(case: OpCase, trial: Trial) -> Mapping[str, tuple[Placement, ...]]:
    return axes(
        trial.rows,
        threads=torch.get_num_threads(),
        layouts=case.layouts,
        constants=case.constants,
        tokens=trial.shape.k if case.micro_batches else None,
        attention_length=trial.shape.k if case.prefill else None,
        paged=case.paged,
    )


def compare(
    kernel: Kernel,
    batch: Batch,
    axis: str,
    trial: Trial,
    left: Placement,
    right: Placement,
    *,
    base: Tensor | None = None,
) -> Mismatch | None:
    """Run both (`base` is the result of `left`, where it is known) and compare the rows of both."""
    base = run(kernel, batch, left) if base is None else base
    common = range(max(left.rows.start, right.rows.start), min(left.rows.stop, right.rows.stop))
    for _ in range(right.repeat):
        other = run(kernel, batch, right)
        ours, theirs = _rows(base, left, common), _rows(other, right, common)
        if right.context is not None:
            ours = ours[:, : right.context]
        if right.query is not None:
            ours = ours[:, -right.query :]
        found = first_mismatch(axis, trial, (left, ours), (right, theirs), common)
        if found is not None:
            return found
    return None


Side = tuple[Placement, Tensor]


def first_mismatch(
    axis: str, trial: Trial, left: Side, right: Side, rows: range
) -> Mismatch | None:
    """The first of the rows that both results hold and that differs."""
    differing = differing_rows(left[1], right[1])
    if not len(differing):
        return None
    row = int(differing[0])
    difference = first_difference(left[1], right[1], row)
    counts = (len(differing), len(rows))
    return Mismatch(axis, trial, left[0], right[0], rows[row], difference, *counts)


def wrong_rows(kernel: Kernel, case: OpCase, trial: Trial) -> Mismatch | None:
    """The plain call against float64: an invariant kernel can be invariantly wrong."""
    if case.oracle is None or trial.kind != kinds.NORMAL:
        return None
    batch = trial.batch(case)
    plain = Placement(trial.rows)
    result = run(kernel, batch, plain)
    oracle = case.oracle(batch.inputs, batch.params)
    far = (~is_close(result, oracle)).reshape(len(result), -1).any(dim=1).nonzero().flatten()
    if not len(far):
        return None
    exact = oracle.result.to(result.dtype)
    # Show the row's first element that is too far off, not the first that is merely rounded.
    row = int(far[0])
    shown = result.where(~is_close(result, oracle), exact)
    difference = first_difference(shown, exact, row)
    return Mismatch(ACCURACY, trial, plain, plain, row, difference, len(far), len(result))


def _rows(result: Tensor, placement: Placement, wanted: range) -> Tensor:
    start = placement.rows.start
    return result[wanted.start - start : wanted.stop - start]
