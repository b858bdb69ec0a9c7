"""Whether two sides of an op lie as far apart as rounding explains, and who is nearer to float64.

In: one site's inputs, what each side made of them, what each computes with. Out: Judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_kernels.compare_ops.variant import AnyFamily, Inputs, Outputs


@dataclass(frozen=True, slots=True)
class Seen:
    """One side's op on the engine's inputs."""

    inputs: Inputs  # the engine's, in this side's dtypes
    outputs: Outputs
    parameters: Parameters  # this side's own

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        return tuple(output.dtype for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Judged:
    """Errors are root mean squares in units of the tolerance; fractions are of elements."""

    engine_error: float
    trainer_error: float
    engine_off: float  # fraction that no rounding explains
    trainer_off: float
    apart: float  # fraction of elements farther apart than both tolerances together

    @property
    def fault(self) -> bool:
        return self.apart > 0.0


def judge(family: AnyFamily, engine: Seen, trainer: Seen) -> Judged:
    """Against the float64 reference of the trainer's own weights and numbers."""
    reference = family.reference(trainer.inputs, trainer.parameters)
    mine = _tolerance(family, engine.inputs, trainer.parameters, engine.dtypes, reference)
    theirs = _tolerance(family, trainer.inputs, trainer.parameters, trainer.dtypes, reference)
    return Judged(
        _error(engine.outputs, reference, mine),
        _error(trainer.outputs, reference, theirs),
        _off(engine.outputs, reference, mine),
        _off(trainer.outputs, reference, theirs),
        _off(engine.outputs, trainer.outputs, _sum(mine, theirs)),
    )


def off_by(
    family: AnyFamily, seen: Seen, parameters: Parameters, outputs: Outputs | None = None
) -> float:
    """Fraction of elements farther than rounding from the op with `parameters`, or `outputs`."""
    reference = family.reference(seen.inputs, parameters)
    tolerance = _tolerance(family, seen.inputs, parameters, seen.dtypes, reference)
    if outputs is None:
        return _off(seen.outputs, reference, tolerance)
    # What it is compared with is rounded as well.
    return _off(seen.outputs, outputs, _sum(tolerance, tolerance))


def _tolerance(
    family: AnyFamily,
    inputs: Inputs,
    parameters: Parameters,
    dtypes: tuple[torch.dtype, ...],
    reference: Outputs,
) -> Outputs:
    """Each output's in the dtype in which it is stored; integers have none."""
    by_dtype = {
        dtype: family.tolerance(inputs, parameters, dtype, reference)
        for dtype in set(dtypes)
        if dtype.is_floating_point
    }
    return tuple(
        by_dtype[dtype][index].double()
        if dtype in by_dtype
        else torch.zeros(reference[index].shape, dtype=torch.float64)
        for index, dtype in enumerate(dtypes)
    )


def _sum(left: Outputs, right: Outputs) -> Outputs:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _distances(left: Outputs, right: Outputs) -> list[Tensor]:
    """A number against none counts as infinitely far, two of none as equal."""
    found = []
    for a, b in zip(left, right, strict=True):
        x, y = a.double(), b.double()
        both = (x == y) | (x.isnan() & y.isnan())
        found.append(torch.where(both, 0.0, (x - y).abs()).nan_to_num(torch.inf, torch.inf))
    return found


def _error(outputs: Outputs, reference: Outputs, tolerance: Outputs) -> float:
    total, count = 0.0, 0
    for distance, allowed in zip(_distances(outputs, reference), tolerance, strict=True):
        ratio = torch.where(distance > 0, distance / allowed, 0.0)
        total += float(ratio.square().sum())
        count += ratio.numel()
    return (total / count) ** 0.5 if count else 0.0


def _off(left: Outputs, right: Outputs, tolerance: Outputs) -> float:
    beyond, count = 0, 0
    for distance, allowed in zip(_distances(left, right), tolerance, strict=True):
        beyond += int((distance > allowed).sum())
        count += distance.numel()
    return beyond / count if count else 0.0
