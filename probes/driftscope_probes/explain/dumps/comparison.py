"""Two aligned dumps, tensor by tensor, and op by op on those tokens whose inputs are equal.

In: dumps with their rows in one order. Out: for every place how much is bitwise equal and which
rows; for every op what it does on rows whose inputs are. Two tensors stand in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.compare_bits import BITS, bits
from driftscope_kernels.compare_ops.equality import Equality, compared
from driftscope_probes.explain.dumps.alignment import Aligned
from driftscope_probes.explain.dumps.base import LOGPROB, dtype_name
from driftscope_probes.explain.dumps.flow import Step, steps_of
from driftscope_probes.explain.dumps.rows import Dump
from driftscope_probes.explain.report import InputEvidence
from driftscope_probes.explain.sites import Place
from driftscope_probes.progress import Progress, ProgressSink

#: Bits of the significand: where dtypes differ, both sides are rounded to the coarser one.
_SIGNIFICANDS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


@dataclass(frozen=True, slots=True)
class Seen:
    """One place in both dumps, as the runs were."""

    place: Place
    equality: Equality
    equal_rows: Tensor  # bool [rows]
    relative: float  # ‖A − B‖ / ‖B‖, in float64


@dataclass(frozen=True, slots=True)
class StepResult:
    step: Step
    own: Equality  # of all rows
    rows: Tensor  # bool [rows]: all that it follows from is bitwise equal
    given_equal: Equality | None  # of those rows; None: there is none, or inputs are unknown
    inputs: InputEvidence

    @property
    def differs_by_itself(self) -> bool:
        return self.given_equal is not None and not self.given_equal.exact


@dataclass(frozen=True, slots=True)
class Comparison:
    seen: Mapping[Place, Seen]
    steps: tuple[StepResult, ...]  # in the order in which they run
    rounded: tuple[str, ...]  # dtypes that had to be rounded: "float32 to bfloat16"
    uncovered: tuple[str, ...]


class Pair:
    """Reads a place of both dumps, rows in one order, in one dtype."""

    def __init__(self, left: Dump, right: Dump, rows: Aligned) -> None:
        self.left, self.right, self.rows = left, right, rows
        self.rounded: dict[str, None] = {}

    def read(self, place: Place) -> tuple[Tensor, Tensor]:
        a, b = self.left.read(place), self.right.read(place)
        if place != LOGPROB:
            a, b = a[self.rows.left], b[self.rows.right]
        return self._one_dtype(a, b)

    def _one_dtype(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if not a.is_floating_point() or not b.is_floating_point():
            return a.long(), b.long()
        a, b = (value if value.dtype in BITS else value.float() for value in (a, b))
        if a.dtype == b.dtype:
            return a, b
        coarse, fine = sorted((a.dtype, b.dtype), key=lambda dtype: _SIGNIFICANDS[dtype])
        self.rounded[f"{dtype_name(fine)} to {dtype_name(coarse)}"] = None
        return a.to(coarse), b.to(coarse)


def compare(pair: Pair, progress: ProgressSink) -> Comparison:
    """Every place that both have, then every op."""
    left, right = pair.left, pair.right
    common = [place for place in left.places if place in set(right.places)]
    uncovered = [f"A: {name}" for name in left.not_seen] + [f"B: {name}" for name in right.not_seen]
    for name, one, other in (("A", left, right), ("B", right, left)):
        alone = [place.key for place in one.places if place not in set(other.places)]
        uncovered += [f"{key}: in {name} alone" for key in alone]
    seen: dict[Place, Seen] = {}
    for index, place in enumerate(common):
        progress(Progress("comparing", 0.8 * index / len(common), place.key))
        a, b = pair.read(place)
        if a.shape != b.shape:
            uncovered.append(f"{place.key}: {list(a.shape)} in A, {list(b.shape)} in B")
            continue
        seen[place] = _seen(place, a, b)
    known = all(check.equal for check in pair.rows.checks if check.what == "tokens")
    tokens = left.facts.tokens is not None and right.facts.tokens is not None
    of_rows = [place for place in seen if place != LOGPROB]
    steps = steps_of(of_rows, tokens_known=known and tokens)
    covered = {place for step in steps for place in step.outputs}
    uncovered += [place.key for place in of_rows if place not in covered]
    results = []
    for index, step in enumerate(steps):
        progress(Progress("comparing ops", 0.8 + 0.2 * index / len(steps), step.site.key))
        results.append(_result(step, seen, pair))
    return Comparison(seen, tuple(results), tuple(pair.rounded), tuple(uncovered))


def _seen(place: Place, a: Tensor, b: Tensor) -> Seen:
    equality = compared(a, b)
    if equality.exact:
        rows, relative = torch.ones(len(a), dtype=torch.bool), 0.0
    else:
        rows = (_bits(a) == _bits(b)).reshape(len(a), -1).all(dim=1)
        norm = float(b.double().norm())
        relative = float((a.double() - b.double()).norm()) / norm if norm else float("inf")
    return Seen(place, equality, rows, relative)


def _bits(values: Tensor) -> Tensor:
    return bits(values) if values.is_floating_point() else values


def _result(step: Step, seen: Mapping[Place, Seen], pair: Pair) -> StepResult:
    own = _joined([seen[place].equality for place in step.outputs])
    total = pair.rows.facts.rows
    rows = torch.ones(total, dtype=torch.bool)
    for place in step.inputs:
        rows &= seen[place].equal_rows
    inputs: InputEvidence = "equal" if bool(rows.all()) else "different"
    if not step.known:
        return StepResult(step, own, torch.zeros(total, dtype=torch.bool), None, "unknown")
    if step.sequence_wide:
        rows = _all_before(rows, pair.rows.facts.cu_seqlens)
    if not bool(rows.any()):
        return StepResult(step, own, rows, None, inputs)
    if bool(rows.all()):
        return StepResult(step, own, rows, own, inputs)
    parts = []
    for place in step.outputs:
        if bool(seen[place].equal_rows[rows].all()):
            elements = int(rows.sum()) * (seen[place].equality.elements // total)
            parts.append(Equality(elements, elements, 0, 0.0, 0, None))
        else:
            a, b = pair.read(place)
            parts.append(compared(a[rows], b[rows]))
    return StepResult(step, own, rows, _joined(parts), inputs)


def _all_before(rows: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Rows up to the first of their sequence that is not marked."""
    result = rows.clone()
    for start, end in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False):
        result[start:end] = rows[start:end].long().cumprod(0).bool()
    return result


def _joined(parts: list[Equality]) -> Equality:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
