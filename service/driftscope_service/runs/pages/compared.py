"""Two runs or two steps side by side: what an address names, their numbers, what they say together.

In: `RUN` or `RUN:STEP`. Out: Side, rows of numbers with ratio and limits, RunState.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from driftscope_probes.drift.series import SERIES_SCALES
from driftscope_service.export.metric_labels import Metric
from driftscope_service.export.number_format import number
from driftscope_service.step_schemas import MAX_STEP, RUN_PATTERN
from driftscope_service.store.run_repository import Run, RunRepository
from driftscope_service.store.series_query import points_before
from driftscope_service.store.step_repository import StepRepository
from driftscope_service.web import address, metric_words
from driftscope_service.web.metric_limits import metric_limits
from driftscope_service.web.moment import RunState

#: The longest name of a run, a colon, the highest step.
MAX_SIDE: Final = 128 + 1 + 16
#: Two runs of the same kind differ by less from one seed to the next.
ALIKE: Final = 1.25


class UnknownSide(ValueError):
    """What was typed names no run or no step of one."""


@dataclass(frozen=True, slots=True)
class Side:
    run: Run
    step: int  # of the numbers
    whole: bool  # a run was named, and the step is its last one
    numbers: Mapping[str, Any]
    crossed: Sequence[str]

    @property
    def label(self) -> str:
        return self.run.name if self.whole else f"{self.run.name}, step {self.step:,}"

    @property
    def named(self) -> str:
        """As the address names it."""
        return self.run.name if self.whole else f"{self.run.name}:{self.step}"

    @property
    def page(self) -> str:
        name = self.run.name
        return address.run_page(name) if self.whole else address.step_page(name, self.step)


@dataclass(frozen=True, slots=True)
class Row:
    metric: Metric
    a: str
    b: str
    ratio: str  # of B to A, "" where it says nothing
    telling: bool  # far from 1
    limits: str
    a_beyond: bool
    b_beyond: bool


def side(connection: Connection, text: str, *, as_step: bool = False) -> Side:
    """`as_step`: a run stands for its last step, with every number of it. Raises UnknownSide."""
    name, colon, digits = text.strip().partition(":")
    if not re.fullmatch(RUN_PATTERN, name) or (colon and not digits.isdecimal()):
        raise UnknownSide(f"{text[:MAX_SIDE]!r} is neither a run nor run:step")
    run = RunRepository(connection).get(name)
    if run is None:
        raise UnknownSide(f"there is no run {name!r}")
    if run.last_step is None:
        raise UnknownSide(f"the run {name!r} has no complete step yet")
    step = min(int(digits), MAX_STEP) if colon else run.last_step
    if not colon and not as_step:
        point = points_before(connection, run.number, 1, before=None)[0]
        return Side(run, point.step, True, point.series, point.crossed)
    stored = StepRepository(connection).get(name, step)
    if stored is None:
        raise UnknownSide(f"the run {name!r} has no complete step {digits}")
    analysis = json.loads(stored.analysis)
    crossed = [one["metric"] for one in analysis["crossed_limits"]]
    return Side(run, step, False, analysis["comparison"], crossed)


def rows(a: Side, b: Side, names: Sequence[str]) -> list[Row]:
    """Those that either side has."""
    return [
        _row(a, b, name)
        for name in names
        if a.numbers.get(name) is not None or b.numbers.get(name) is not None
    ]


def compared_state(a: Side, b: Side) -> RunState:
    found = ratio(metric_words.DEFAULT, *(one.numbers.get(metric_words.DEFAULT) for one in (a, b)))
    label = metric_words.label(metric_words.DEFAULT)
    if found is None:
        said, word = f"The {label} of one side is undefined or 0", "not comparable"
    elif 1 / ALIKE < found < ALIKE:
        said, word = f"Both have about the same {label}", "alike"
    else:
        larger, smaller, times = (b, a, found) if found > 1 else (a, b, 1 / found)
        said = f"The {label} of {larger.label} is {number(times)} times that of {smaller.label}"
        word = "apart"
    beyond = [f"{one.label} is beyond {_limits(one)}" for one in (a, b) if one.crossed]
    if beyond:
        return RunState("bad", word, f"{said}; {' and '.join(beyond)}.")
    return RunState("good", word, f"{said}; both are within every published limit.")


def ratio(name: str, a: float | None, b: float | None) -> float | None:
    """Of the distances from where both sides of a run would agree; None where it says nothing."""
    if a is None or b is None:
        return None
    known = SERIES_SCALES.get(name)
    ideal = 0.0 if known is None else known.ideal
    first, second = a - ideal, b - ideal
    # A sign that changes, or nothing to divide by, has no ratio.
    return second / first if first * second > 0 else None


def _row(a: Side, b: Side, name: str) -> Row:
    found = ratio(name, a.numbers.get(name), b.numbers.get(name))
    bounds = {
        f"{limit.direction} {number(limit.value)}"
        for one in (a, b)
        for limit in metric_limits(name, one.run.rollout_dtype, one.run.trainer_dtype)
    }
    return Row(
        metric_words.metric(name),
        metric_words.value(name, a.numbers.get(name)),
        metric_words.value(name, b.numbers.get(name)),
        "" if found is None else number(found),
        found is not None and not 1 / ALIKE < found < ALIKE,
        ", ".join(sorted(bounds)),
        name in a.crossed,
        name in b.crossed,
    )


def _limits(one: Side) -> str:
    count = len(one.crossed)
    return "a published limit" if count == 1 else f"{count} published limits"
