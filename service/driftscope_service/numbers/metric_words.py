"""A number of the comparison in words: label, value, unit, interval, thresholds.

In: names and values of Comparison.to_dict(). Out: text. A name that is not in the catalogue is
shown under its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch.thresholds import THRESHOLDS, Direction, pair_precision
from driftscope_probes.numbers import GROUPS, NUMBERS, Form, NumberRow
from driftscope_service.http.errors import InvalidField
from driftscope_service.numbers.number_format import (
    UNDEFINED,
    interval,
    near_one,
    number,
    one_minus,
    share,
)

#: Shown first, in this order: size, tail, divergence, likeness, weight loss, disagreement.
HEADLINE: Final = (
    *("abs_diff_mean", "abs_diff_p99", "kl_k3", "prob_pearson", "ess_ratio_token"),
    "confident_disagreement_share",
)
DEFAULT: Final = HEADLINE[0]
WRITERS: Final[Mapping[Form, Callable[[float], str]]] = {
    "plain": number,
    "fraction": share,
    "near_one": near_one,
    "one_minus": one_minus,
}


def _column(name: str) -> NumberRow:
    row = NUMBERS[name]
    return replace(row, label=row.short, form="one_minus" if row.form == "near_one" else row.form)


#: The numbers of each cell side by side, in as few characters as possible.
SUMMARY: Final = tuple(
    _column(name)
    for name in (
        *("tokens", "abs_diff_mean", "abs_diff_p99", "abs_diff_max", "kl_k3", "prob_pearson"),
        *("ratio_share_outside_0p5_2", "ratio_share_outside_0p9_1p1", "seq_logratio_std"),
        *("ess_ratio_token", "bitwise_equal_fraction", "first_differing_token"),
    )
)
OTHER: Final = "Further numbers"
#: Keys of Comparison.to_dict() that describe numbers.
ABOUT: Final = {"intervals", "interval_level", "interval_resamples", "interval_seed", "undefined"}
_GROUPED: Final = {row.name for rows in GROUPS.values() for row in rows}


def metric(name: str) -> NumberRow:
    return NUMBERS.get(name) or NumberRow(name, name)


def label(name: str) -> str:
    return metric(name).label


def written(row: NumberRow, value: float | None) -> str:
    return UNDEFINED if value is None else WRITERS[row.form](value)


def value(name: str, measured: float | None) -> str:
    return written(metric(name), measured)


def with_unit(name: str, measured: float | None) -> str:
    return f"{value(name, measured)} {unit(name, measured)}".rstrip()


def unit(name: str, measured: float | None) -> str:
    """ "" where there is none, or no value."""
    return "" if measured is None else metric(name).unit


@dataclass(frozen=True, slots=True)
class Shown:
    """One number of one comparison as text."""

    metric: NumberRow
    value: str  # "undefined" where there is none
    interval: str | None
    reason: str | None  # why the value, or else its interval, is undefined


def shown(comparison: Mapping[str, Any], row: NumberRow) -> Shown:
    value, reasons = comparison.get(row.name), comparison.get("undefined", {})
    if value is None:
        return Shown(row, UNDEFINED, None, reasons.get(row.name, "not measured"))
    bounds = comparison.get("intervals", {}).get(row.name)
    text = None if bounds is None else interval(*(written(row, bound) for bound in bounds))
    return Shown(row, written(row, value), text, reasons.get(f"intervals.{row.name}"))


def grouped(comparison: Mapping[str, Any]) -> dict[str, list[Shown]]:
    """Every number of the comparison, those without a group last."""
    groups = {
        title: [shown(comparison, row) for row in rows if row.name in comparison]
        for title, rows in GROUPS.items()
    }
    groups[OTHER] = [
        shown(comparison, NumberRow(name, name))
        for name, value in comparison.items()
        if name not in _GROUPED | ABOUT and (value is None or isinstance(value, (int, float)))
    ]
    return {title: rows for title, rows in groups.items() if rows}


def check_metric(name: str) -> None:
    if name not in SERIES:
        raise InvalidField(
            "query/metric",
            f"{name[:80]!r} is not a number that is followed over steps",
            remedy=f"use one of {', '.join(SERIES)}.",
        )


@dataclass(frozen=True, slots=True)
class MetricThreshold:
    direction: Direction
    value: float
    source: str


def metric_thresholds(
    metric: str, rollout_dtype: str | None, trainer_dtype: str | None
) -> list[MetricThreshold]:
    precision = pair_precision(rollout_dtype, trainer_dtype)
    return [
        MetricThreshold(one.direction, one.values[precision], one.source)
        for one in THRESHOLDS
        if one.metric == metric
    ]
