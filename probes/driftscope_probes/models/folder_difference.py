"""Two model folders, tensor by tensor: equal, rounded, coarser, scaled, lost, changed. No torch.

In: what the engine loads and what the trainer has. Out: FolderDifference. Of a large tensor evenly
spaced rows are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.models.merge import folder_tensors
from driftscope_probes.models.safetensors_file import (
    DROPPED_BITS,
    FLOATS,
    StoredTensor,
    round_to_bfloat16,
)
from driftscope_probes.plural import counted

#: missing: the engine's folder has no such tensor. reshaped, packed: not comparable value by value.
#: lost: some of its rows are zero. rounded: the trainer's values in bf16 or fp16. coarser: a step
#: function of the trainer's values, as quantisation makes. scaled: a multiple. changed: anything
#: else, such as another step's.
Kind = Literal[
    "equal", "missing", "reshaped", "packed", "lost", "rounded", "coarser", "scaled", "changed"
]
#: Values read of a tensor: whole for tiny models, a tenth of a second for a large one.
VALUES_READ: Final = 2**17
#: Scales of quantised weights hold for at least so many neighbours (GGUF and MX formats: 32).
GROUP: Final = 32
#: Of neighbouring values within a group, the part that a step function may reverse, and the part
#: that it merges at least. int8 by rows merges 5 %; a training step that moves a weight by its last
#: bit reverses as many as it merges.
REVERSED_UP_TO, MERGED_FROM = 1e-4, 1e-3
#: Two roundings to bf16 are up to 2^-8 each from the value.
SCALED_WITHIN: Final = 2.0**-7


@dataclass(frozen=True, slots=True)
class TensorDifference:
    name: str
    kind: Kind
    relative: float = 0.0  # root mean square of the difference, of the trainer's values


@dataclass(frozen=True, slots=True)
class FolderDifference:
    tensors: tuple[TensorDifference, ...]  # all of the trainer's, equal ones too

    def of(self, *kinds: Kind) -> tuple[TensorDifference, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.kind in kinds)

    @property
    def different(self) -> tuple[TensorDifference, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.kind != "equal")

    @property
    def sentence(self) -> str:
        """ "2 of 30 tensors differ: 2 lost, the first model.norm.weight"."""
        found = self.different
        if not found:
            return f"all {len(self.tensors)} tensors are equal"
        kinds = Counter(tensor.kind for tensor in found)
        parts = [f"{count} {kind}" for kind, count in kinds.most_common()]
        return (
            f"{len(found)} of {counted(len(self.tensors), 'tensor')} differ: {', '.join(parts)}; "
            f"the first is {found[0].name}"
        )


def folder_difference(engine: Path, trainer: Path) -> FolderDifference:
    """Raises ModelError where a folder's weights cannot be read."""
    engines, trainers = folder_tensors(engine), folder_tensors(trainer)
    return FolderDifference(
        tuple(_compared(name, engines.get(name), tensor) for name, tensor in trainers.items())
    )


def _compared(name: str, engine: StoredTensor | None, trainer: StoredTensor) -> TensorDifference:
    if engine is None:
        return TensorDifference(name, "missing")
    if engine.format not in FLOATS or trainer.format not in FLOATS:
        return TensorDifference(name, "packed")
    if engine.shape != trainer.shape:
        return TensorDifference(name, "reshaped")
    step = -(-prod(trainer.shape) // VALUES_READ) if trainer.shape else 1
    rows = slice(None, None, max(step, 1))
    ours, theirs = engine.values(rows), trainer.values(rows)
    kind = _kind(ours, theirs)
    size = float(np.sqrt(np.mean(theirs.astype(np.float64) ** 2))) or 1.0
    apart = float(np.sqrt(np.mean((ours.astype(np.float64) - theirs) ** 2)))
    return TensorDifference(name, kind, apart / size)


def _kind(engine: NDArray[np.float32], trainer: NDArray[np.float32]) -> Kind:
    if np.array_equal(engine, trainer):
        return "equal"
    if _zero_rows(engine) > _zero_rows(trainer):
        return "lost"
    if np.array_equal(engine, _as_bf16(trainer)) or np.array_equal(engine, _as_fp16(trainer)):
        return "rounded"
    if _scaled(engine, trainer):
        return "scaled"
    return "coarser" if _is_step_function(engine, trainer) else "changed"


def _zero_rows(values: NDArray[np.float32]) -> int:
    rows = values.reshape(values.shape[0], -1) if values.ndim > 1 else values[:, None]
    return int(np.sum(~rows.any(axis=1)))


def _as_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        return values
    return (round_to_bfloat16(values).astype(np.uint32) << DROPPED_BITS).view(np.float32)


def _as_fp16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def _scaled(engine: NDArray[np.float32], trainer: NDArray[np.float32]) -> bool:
    wide = trainer.astype(np.float64)
    total = float(np.sum(wide * wide))
    factor = float(np.sum(wide * engine)) / total if total > 0 else 1.0
    expected = factor * wide
    close = np.abs(engine - expected) <= SCALED_WITHIN * np.abs(expected)
    return abs(factor - 1.0) > SCALED_WITHIN and bool(close.all())


def _is_step_function(engine: NDArray[np.float32], trainer: NDArray[np.float32]) -> bool:
    """Whether larger values of the trainer are never smaller in the engine, and some are one."""
    width = trainer.shape[-1] if trainer.ndim else 1
    group = GROUP if width % GROUP == 0 else width
    ours, theirs = engine.reshape(-1, group), trainer.reshape(-1, group)
    order = np.lexsort((ours, theirs), axis=-1)
    rises = np.diff(np.take_along_axis(theirs, order, -1), axis=-1) > 0
    steps = np.diff(np.take_along_axis(ours, order, -1), axis=-1)[rises]
    if steps.size == 0:
        return False
    reversed_, merged = float(np.mean(steps < 0)), float(np.mean(steps == 0))
    return reversed_ <= REVERSED_UP_TO and merged >= MERGED_FROM
