"""What a cell's Δ is made of: a random draw of the trainer, other weights, and the rest, kernels.

The trainer scores the same tokens again with one thing taken away, so that
Δ = draw + weights + kernels for every token:

    draw     asked − quiet             what training mode draws at random (dropout, router noise)
    weights  quiet − engine's weights  the trainer's weights against those that the engine loaded
    kernels  engine's weights − rollout  the same weights on both sides: arithmetic alone

In: the traces of a cell. Out: Parts. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.record import Record
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.randomness import Rate, randomness_words

PartName = Literal["draw", "weights", "kernels"]
#: A part that makes up less of the whole mean |Δ| than this is not what the whole is about.
MINOR: Final = 0.1


class Part(Record):
    name: str  # a PartName
    abs_diff_mean: float | None  # nats, over the tokens that are finite in all forwards
    fraction: float | None  # of ΣΔ²: Σ part · Δ / ΣΔ², so that fractions add up to 1


class CellParts(Record):
    engine_dtype: str
    trainer_dtype: str
    abs_diff_mean: float | None
    parts: tuple[Part, ...]

    def part(self, name: PartName) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)


class QuietCell(Record):
    """A cell once more without what the trainer draws at random."""

    engine_dtype: str
    trainer_dtype: str
    abs_diff_mean: float | None  # with the draw, as in the grid
    comparison: dict[str, Any]  # without it
    diagnosis: dict[str, Any]

    @property
    def abs_diff_mean_without(self) -> float | None:
        value: float | None = self.comparison["abs_diff_mean"]
        return value


class Dropout(Record):
    """Random numbers in the trainer's forward, and every cell without them."""

    rates: tuple[Rate, ...]  # empty: no field of the config names what draws
    sentence: str
    cells: tuple[QuietCell, ...]


class Weights(Record):
    """The two sides' weights where they differ, and how much of every cell they make."""

    engine: dict[str, Any]  # facts of the model
    trainer: dict[str, Any]
    adapter: dict[str, Any] | None
    #: How the adapter got into the engine; None in reports of before it could.
    engine_adapter: str | None = None
    sentence: str
    cells: tuple[CellParts, ...]


@dataclass(frozen=True, slots=True)
class Forwards:
    """One cell: what each forward said about the same tokens."""

    rollout: Trace
    asked: Trace
    quiet: Trace | None  # None: nothing is drawn
    engine_weights: Trace | None  # None: both sides have the same weights


def cell_parts(engine_dtype: str, trainer_dtype: str, forwards: Forwards) -> CellParts:
    parts = _differences(forwards)
    whole = sum(parts.values())
    assert isinstance(whole, np.ndarray), "a cell has a kernels part at least"
    used = np.isfinite(whole) & forwards.rollout.mask
    total = float(np.sum(whole[used] ** 2))
    return CellParts(
        engine_dtype=engine_dtype,
        trainer_dtype=trainer_dtype,
        abs_diff_mean=_mean(whole[used]),
        parts=tuple(
            Part(
                name=name,
                abs_diff_mean=_mean(part[used]),
                fraction=float(np.sum(part[used] * whole[used])) / total if total > 0 else None,
            )
            for name, part in parts.items()
        ),
    )


def _differences(forwards: Forwards) -> dict[PartName, NDArray[np.float64]]:
    """In nats, one value per token; the parts add up to Δ."""
    at, found = forwards.asked, {}
    steps: tuple[tuple[PartName, Trace | None], ...] = (
        ("draw", forwards.quiet),
        ("weights", forwards.engine_weights),
        ("kernels", forwards.rollout),
    )
    for name, to in steps:
        if to is not None:
            found[name] = _minus(at, to)
            at = to
    return found


def _minus(left: Trace, right: Trace) -> NDArray[np.float64]:
    # Two equal infinities have no difference: NaN, which takes no part.
    with np.errstate(invalid="ignore"):
        return left.logprobs.astype(np.float64) - right.logprobs.astype(np.float64)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(np.abs(values).mean()) if values.size else None


OneCell = TypeVar("OneCell", QuietCell, CellParts)


def dropout_sentence(rates: Sequence[Rate], cells: Sequence[QuietCell]) -> str:
    """Of the cell that a training run would use: the same format on both sides."""
    cell = _leading(cells)
    said = f"The model has {randomness_words(rates)} and the trainer runs in training mode"
    with_it, without = cell.abs_diff_mean, cell.abs_diff_mean_without
    if with_it is None or without is None:
        return f"{said}; {_names(cell)} has no finite token to compare."
    if without < MINOR * with_it:
        told = f"mean |Δ| {with_it:.2g} is its draw; without it {without:.2g}"
    else:
        told = f"mean |Δ| is {with_it:.2g} with its draw, {without:.2g} without it"
    return f"{said}: {told} ({_names(cell)})."


#: What the engine runs, by how the adapter gets into it.
_IN_THE_ENGINE: Final[Mapping[str, str]] = {
    "off": "",
    "merged-fp32": " + adapter {adapter}, merged and kept in fp32",
    "merged-bf16": " + adapter {adapter}, merged and rounded to bf16",
    "unmerged": " + adapter {adapter} by vLLM's own LoRA",
}


def weights_sentence(
    engine: str,
    trainer: str,
    adapter: str | None,
    cells: Sequence[CellParts],
    engine_adapter: str = "off",
) -> str:
    cell = _leading(cells)
    has = trainer if adapter is None else f"{trainer} + adapter {adapter}, unmerged"
    runs = engine + _IN_THE_ENGINE[engine_adapter].format(adapter=adapter)
    lead = "The two sides have different weights"
    if engine_adapter == "unmerged":
        lead = "Both sides keep the adapter apart"
    said = f"{lead}: the engine {runs}, the trainer {has}."
    weights, kernels = cell.part("weights"), cell.part("kernels")
    assert weights is not None and kernels is not None, "the weights differ"
    if cell.abs_diff_mean is None or weights.fraction is None:
        return f"{said} {_names(cell)} has nothing to split."
    parts = [f"weights {_of(weights)}", f"kernels {_of(kernels)}"]
    draw = cell.part("draw")
    parts += [f"the trainer's random draw {_of(draw)}"] if draw is not None else []
    return (
        f"{said} Mean |Δ| {cell.abs_diff_mean:.2g} ({_names(cell)}) is made of: {', '.join(parts)}."
    )


def _of(part: Part) -> str:
    assert part.abs_diff_mean is not None and part.fraction is not None
    return f"{part.abs_diff_mean:.2g} ({part.fraction:.0%})"


def _leading(cells: Sequence[OneCell]) -> OneCell:
    same = [cell for cell in cells if cell.engine_dtype == cell.trainer_dtype]
    return (same or list(cells))[0]


def _names(cell: QuietCell | CellParts) -> str:
    return f"{cell.engine_dtype} engine against {cell.trainer_dtype} trainer"
