"""Metrics in words, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch.thresholds import THRESHOLDS, Direction, pair_precision
from driftscope_probes.numbers import GROUPS, NUMBERS, Form, NumberRow

DIGITS = 3
#: Outside these bounds the exponent is written; within them the eye compares decimals faster.
PLAIN_FROM, PLAIN_BELOW = 1e-3, 1e5
#: Rounding of a correlation or of an effective sample size in float64: below it, 0 is uncertain.
FLOAT64_NOISE = 1e-15
UNDEFINED = "undefined"


def number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    size = abs(float(f"{value:.{DIGITS - 1}e}"))  # 0.0009999 rounds up into the plain range
    if not PLAIN_FROM <= size < PLAIN_BELOW:
        mantissa, exponent = f"{value:.{DIGITS - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, DIGITS - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def share(value: float) -> str:
    """As a percentage; 100% and 0% only where it is exactly that."""
    if value in (0, 1):
        return f"{value * 100:.0f}%"
    return f"{_below_one(value * 100, 100)}%"


def near_one(value: float) -> str:
    """A ratio whose distance from 1 matters: 1 only where it is exactly that."""
    return "1" if value == 1 else _below_one(value, 1)


def one_minus(value: float) -> str:
    """1 − value, for a correlation: 0 would claim more than float64 knows."""
    rest = 1 - value
    return f"<{number(FLOAT64_NOISE)}" if abs(rest) < FLOAT64_NOISE else number(rest)


def interval(low: str, high: str) -> str:
    return f"{low} – {high}"


def shared_exponent(low: float, high: float) -> str:
    """An interval in as few characters as possible: `(9.81 – 11.0)e-6`."""
    low_text, high_text = number(low), number(high)
    if "e" not in high_text or low < 0:
        return interval(low_text, high_text)
    exponent = int(high_text.partition("e")[2])
    return f"({number(low / 10**exponent)} – {high_text.partition('e')[0]})e{exponent}"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def _below_one(value: float, whole: float) -> str:
    rest = abs(whole - value)
    if rest >= 0.1 * whole:
        return number(value)
    # As many decimals as the distance from the whole needs to show two digits of it.
    return f"{value:.{max(1, 1 - math.floor(math.log10(rest)))}f}"


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
        # Here, since the command line prints numbers and starts faster without a web framework.
        from driftscope_service.http.errors import InvalidField

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
