"""Which fault makes an op differ by more than rounding.

In: one site as both sides saw it. Out: a reason with the clause that says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_kernels.compare_ops.randomness import dropout_of
from driftscope_kernels.compare_ops.reasons import Reason
from driftscope_kernels.compare_ops.variant import AnyFamily
from driftscope_probes.explain.comparison import in_one_dtype
from driftscope_probes.explain.judged import Judged, Seen, off_by
from driftscope_probes.explain.numbers_of_ops import differing_numbers
from driftscope_probes.explain.sides.base import SideName

#: What kind of difference another value of a parameter makes.
FIELD_REASONS: Final[Mapping[str, Reason]] = {
    "weight": "weight",
    "bias": "weight",
    "gate_up": "weight",
    "down": "weight",
    "correction_bias": "weight",
    "inverse_frequencies": "position",
    "scaling": "position",
    "interleaved": "position",
    "window": "mask",
}
#: Weights that were rounded to one of these are told from other weights.
NARROW: Final = (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
#: A fault is named where it leaves no more than this fraction of elements unexplained: a wrong way
#: of a neighbouring kind leaves a tenth and more (docs/explain-drill.md); a right one some, where a
#: number is estimated, or where a last bit decides to which side a coarse rounding goes.
UNEXPLAINED_UP_TO: Final = 1e-2


@dataclass(frozen=True, slots=True)
class Fault:
    reason: Reason
    side: SideName  # the one that is farther from the trainer's weights and numbers in float64
    says: str
    code: str | None = None
    variant: str | None = None


def find_fault(family: AnyFamily, engine: Seen, trainer: Seen, judged: Judged) -> Fault:
    """Other weights or numbers first, since they can be read; then the family's own faults."""
    side: SideName = "engine" if judged.engine_off >= judged.trainer_off else "trainer"
    seen = engine if side == "engine" else trainer
    changed = changed_fields(engine.parameters, trainer.parameters, engine.dtypes[0])
    if changed and off_by(family, engine, engine.parameters) <= UNEXPLAINED_UP_TO:
        return _of_fields(engine.parameters, trainer.parameters, changed, side)
    return _of_family(family, seen, trainer.parameters, side) or Fault(
        "unknown", side, "no named fault gives what it gives"
    )


def _of_family(
    family: AnyFamily, seen: Seen, parameters: Parameters, side: SideName
) -> Fault | None:
    faults = [
        *family.faults(parameters),
        *family.fitted(seen.inputs, parameters, seen.outputs),
        # Ways that round to less than the side's dtype lie beyond its tolerance too.
        *family.variants(parameters)[1:],
    ]
    best, least = None, UNEXPLAINED_UP_TO
    for variant in faults:
        outputs = variant.run(seen.inputs, parameters, seen.dtypes[0])
        left = off_by(family, seen, parameters, outputs)
        if best is None and left <= least or left < least:
            best, least = variant, left
    if best is not None:
        return Fault(best.reason, side, best.says, best.code, best.name)
    plain = family.variants(parameters)[0].run(seen.inputs, parameters, seen.dtypes[0])
    for expected, output in zip(plain, seen.outputs, strict=True):
        rate = dropout_of(expected, output) if output.is_floating_point() else None
        if rate is not None:
            return Fault(
                "randomness",
                side,
                f"elements are zeroed at random at a rate of {rate:.2g}: dropout is on",
                f"F.dropout(x, p={rate:.2g}, training=True)",
                "dropout",
            )
    return None


def changed_fields(engine: Parameters, trainer: Parameters, dtype: torch.dtype) -> list[str]:
    """Names of the parameters in which the sides differ; weights in the coarser dtype of the two.

    `dtype` is the engine's.
    """
    assert type(engine) is type(trainer), (type(engine), type(trainer))
    weights = [
        field.name
        for field in fields(engine)
        if FIELD_REASONS.get(field.name) == "weight"
        and not _same(getattr(engine, field.name), getattr(trainer, field.name))
    ]
    return [*weights, *differing_numbers(engine, trainer, dtype)]


def _same(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        return left is right
    if left.shape != right.shape:
        return False
    return torch.equal(*in_one_dtype(left, right))


def _of_fields(
    engine: Parameters, trainer: Parameters, changed: list[str], side: SideName
) -> Fault:
    name = changed[0]
    mine, theirs = getattr(engine, name), getattr(trainer, name)
    reason = FIELD_REASONS.get(name, "formula")
    if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
        if mine.shape != theirs.shape:
            says = f"its {name} is {list(mine.shape)}, the trainer's {list(theirs.shape)}"
            return Fault(reason, side, says)
        rounded = _rounded_to(mine, theirs)
        if rounded is not None:
            says = f"its {name} is the trainer's rounded to {rounded}"
            return Fault("dtype", side, says, f"{name}.to({rounded})", "rounded_weight")
        a, b = in_one_dtype(mine, theirs)
        share = float((a != b).float().mean())
        return Fault(
            reason, side, f"its {name.replace('_', ' ')} differs in {share:.2%} of the elements"
        )
    label = name.replace("_", " ")
    return Fault(reason, side, f"its {label} is {mine}, the trainer's {theirs}", f"{name}={mine}")


def _rounded_to(mine: Tensor, theirs: Tensor) -> str | None:
    if not mine.is_floating_point():
        return None
    for dtype in NARROW:
        if torch.equal(theirs.to(dtype).to(mine.dtype), mine) and dtype != mine.dtype:
            return str(dtype)
    return None
