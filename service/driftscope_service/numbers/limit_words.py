"""A number beside its limits, all in one unit and form.

In: a number of the catalogue, its value, its limits. Out: their texts. A value that is closer to
its ideal than can be shown becomes its distance from there, and so do the limits beside it:
1 − Pearson 5.70e-12, limit 0.0100; not 0.9999999999943.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.mismatch.thresholds import Direction
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import FLOAT64_NOISE, MetricThreshold, number

#: Distance from 1 below which the digits of a value are mostly nines (or zeros): the fourth decimal
#: is the last that a tile holds beside its unit.
TELLING_DISTANCE: Final = 1e-4
NOT_FINITE: Final = "not finite"
_FLIPPED: Final[Mapping[Direction, Direction]] = {"above": "below", "below": "above"}


@dataclass(frozen=True, slots=True)
class LimitText:
    direction: Direction  # the number is beyond the limit on this side of it
    text: str  # without its unit

    def __str__(self) -> str:
        return f"{self.direction} {self.text}"


@dataclass(frozen=True, slots=True)
class Beside:
    """A number and its limits as text: one label, one unit, one form for all."""

    label: str
    value: str  # "undefined" where there is none
    unit: str  # "" where there is none
    limits: tuple[LimitText, ...]

    @property
    def value_with_unit(self) -> str:
        return f"{self.value} {self.unit}".rstrip()

    def limit_with_unit(self, limit: LimitText) -> str:
        return f"{limit} {self.unit}".rstrip()


def beside(name: str, measured: float | None, limits: Sequence[MetricThreshold] = ()) -> Beside:
    """`name`: as in Comparison.to_dict()."""
    row = metric_words.metric(name)
    every = [one for one in (measured, *(limit.value for limit in limits)) if one is not None]
    if row.form == "near_one" and any(0 < abs(one - 1) < TELLING_DISTANCE for one in every):
        return _distances(name, measured, limits)
    return Beside(
        label=row.label,
        value=_share(measured) if row.form == "fraction" else metric_words.written(row, measured),
        unit=metric_words.unit(name, measured),
        limits=tuple(
            LimitText(one.direction, metric_words.written(row, one.value)) for one in limits
        ),
    )


def _distances(name: str, measured: float | None, limits: Sequence[MetricThreshold]) -> Beside:
    """From 1, downwards where the limits are below it (a correlation), else upwards (a ratio)."""
    row = metric_words.metric(name)
    if limits:
        down = limits[0].direction == "below"
    else:
        down = measured is not None and measured < 1
    sign = -1.0 if down else 1.0
    texts = tuple(
        LimitText(
            _FLIPPED[one.direction] if down else one.direction, number(sign * (one.value - 1))
        )
        for one in limits
    )
    label = _short(row.short or row.label, down)
    value = metric_words.UNDEFINED if measured is None else _distance(sign * (measured - 1))
    return Beside(label, value, "", texts)


def _share(measured: float | None) -> str:
    if measured is None or not 0 < 1 - measured < TELLING_DISTANCE:
        return metric_words.UNDEFINED if measured is None else metric_words.share(measured)
    return f"all but {metric_words.share(1 - measured)}"


def _short(label: str, down: bool) -> str:
    if label.startswith("1 − "):
        return label
    return f"1 − {label}" if down else f"{label} − 1"


def _distance(value: float) -> str:
    """0 would claim more than float64 knows."""
    return f"<{number(FLOAT64_NOISE)}" if 0 < abs(value) < FLOAT64_NOISE else number(value)


def crossed(one: Mapping[str, Any]) -> Beside:
    """Of an entry of crossed_limits, as the API has it, with its limit."""
    limit = MetricThreshold(one["direction"], one["limit"], one["source"])
    shown = beside(one["metric"], one["value"], [limit])
    if one["value"] is not None:
        return shown
    return Beside(shown.label, NOT_FINITE, "", shown.limits)
