"""What moved in a run, as rows for people: every change of level and every trend, newest first.

In: `drift` of the API. Out: Movements, at most MOST.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from driftscope_service.export.number_format import number
from driftscope_service.web import metric_words

MOST: Final = 40
#: A change by less than a tenth is seen from both numbers.
TELLING: Final = 1.1


@dataclass(frozen=True, slots=True)
class Movement:
    metric: str
    kind: Literal["shifted", "trending"]
    step: int  # at which it began
    what: str


def movements(drift: Mapping[str, Any]) -> list[Movement]:
    found: list[Movement] = []
    for name, one in drift["metrics"].items():
        found += [_shift(name, change) for change in one["change_points"]]
        if one["trend"] is not None:
            found.append(_trend(name, one))
    return sorted(found, key=lambda movement: movement.step, reverse=True)[:MOST]


def _shift(name: str, change: Mapping[str, Any]) -> Movement:
    before, after = (metric_words.value(name, change[key]) for key in ("before", "after"))
    unit = metric_words.metric(name).unit
    if before == after:
        return Movement(name, "shifted", change["step"], f"no longer constant at {before}")
    what = f"from {before} to {after}{' ' + unit if unit else ''}{_times(change['ratio'])}"
    return Movement(name, "shifted", change["step"], what)


def _times(ratio: float | None) -> str:
    """ "" for a number near 1 such as a correlation, whose ratio says nothing."""
    if ratio is None or ratio <= 0 or 1 / TELLING < ratio < TELLING:
        return ""
    return f", {number(ratio)} times"


def _trend(name: str, one: Mapping[str, Any]) -> Movement:
    trend = one["trend"]
    return Movement(name, "trending", trend["from_step"], f"{slope(name, one)} per 100 steps")


def slope(name: str, one: Mapping[str, Any]) -> str:
    """Of a trend, per 100 steps, with its sign."""
    found = one["trend"]["per_100_steps"]
    sign = "+" if found > 0 else "−"
    if one["scale"] == "log":
        return f"{sign}{number(abs(found) * 100)} %"
    return f"{sign}{metric_words.with_unit(name, abs(found))}"
