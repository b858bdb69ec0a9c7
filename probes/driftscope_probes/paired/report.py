"""What a grid says in one sentence, with the figures behind it next to the published ones.

In: the comparison of every cell. Out: a Reading. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from driftscope_probes.mismatch import Comparison, RatioInterval, Undefined, ratio_interval
from driftscope_probes.published import FP16_ABS_DIFF_QUOTIENT, FP16_KL_QUOTIENT, Published

Grid = Mapping[tuple[str, str], Comparison]  # (engine dtype, trainer mode)


@dataclass(frozen=True, slots=True)
class Figure:
    """A quotient of two cells' means, with its 95 % interval from resampling sequences."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    published: str
    source: str
    undefined: str | None = None  # why there is no value or interval


@dataclass(frozen=True, slots=True)
class Reading:
    sentence: str
    figures: tuple[Figure, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "figures": [asdict(figure) for figure in self.figures],
        }


def read_grid(grid: Grid, *, resamples: int) -> Reading:
    """FP16 against BF16 where both matched cells are there; else the closest and furthest cell."""
    bf16, fp16 = grid.get(("bf16", "bf16")), grid.get(("fp16", "fp16"))
    if bf16 is None or fp16 is None:
        return Reading(_extremes(grid), ())
    if _mean(fp16) in (0.0, None) or _mean(bf16) is None:
        return Reading(_extremes(grid), ())
    abs_diff = _figure("abs_diff_mean", bf16, fp16, resamples, FP16_ABS_DIFF_QUOTIENT)
    kl = _figure("kl_k3", bf16, fp16, resamples, FP16_KL_QUOTIENT)
    sentence = (
        f"FP16 on both sides is {_times(abs_diff)} closer than BF16 in mean |Δ| "
        f"(published: {FP16_ABS_DIFF_QUOTIENT.text}) and {_times(kl)} in k3 "
        f"(published: {FP16_KL_QUOTIENT.text})."
    )
    return Reading(sentence, (abs_diff, kl))


def _figure(
    name: str, bf16: Comparison, fp16: Comparison, resamples: int, published: Published
) -> Figure:
    quotient: RatioInterval | Undefined = Undefined("intervals were switched off")
    if resamples:
        quotient = ratio_interval(
            bf16.sequence_mean(name), fp16.sequence_mean(name), resamples=resamples
        )
    above, below = bf16.value(name), fp16.value(name)
    label = f"{name} bf16/fp16"
    if isinstance(quotient, RatioInterval):
        interval = (quotient.low, quotient.high)
        return Figure(label, quotient.ratio, interval, published.text, published.source)
    value = None
    if not isinstance(above, Undefined) and not isinstance(below, Undefined) and below:
        value = above / below
    return Figure(label, value, None, published.text, published.source, quotient.reason)


def _times(figure: Figure) -> str:
    if figure.value is None:
        return "not measurably"
    if figure.interval is None:
        return f"{_two_digits(figure.value)} times"
    low, high = figure.interval
    return f"{_two_digits(figure.value)} ({_two_digits(low)} to {_two_digits(high)}) times"


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _mean(cell: Comparison) -> float | int | None:
    value = cell.value("abs_diff_mean")
    return None if isinstance(value, Undefined) else value


def _extremes(grid: Grid) -> str:
    means = {key: mean for key, cell in grid.items() if (mean := _mean(cell)) is not None}
    if not means:
        return "No cell of the grid has a defined mean |Δ|."
    closest, furthest = min(means, key=lambda key: means[key]), max(means, key=lambda k: means[k])
    if means[furthest] == 0.0:
        return "Engine and trainer agree bit for bit in every cell."
    if closest == furthest:
        return f"{_cell(closest)}: mean |Δ| {means[closest]:.3g} nats."
    return (
        f"The closest cell is {_cell(closest)} with mean |Δ| {means[closest]:.3g} nats, the "
        f"furthest {_cell(furthest)} with {means[furthest]:.3g} nats."
    )


def _cell(key: tuple[str, str]) -> str:
    return f"{key[0]} engine against {key[1]} trainer"
