"""Two runs beside each other: their numbers as rows, their steps as plots."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch.histogram import Histogram
from driftscope_probes.numbers import NUMBERS, NumberRow
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.metric_words import metric_thresholds, number
from driftscope_service.pages import navigation
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.pages.words import RunState
from driftscope_service.runs.api.schemas import MAX_STEP, RUN_PATTERN
from driftscope_service.runs.pages.drift_plot import Bucket, downsample
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import MetricPoint, StepRepository, points_before

#: The longest name of a run, a colon, the highest step.
MAX_SIDE: Final = 128 + 1 + 16
#: Two runs of the same kind differ by less from one seed to the next.
ALIKE: Final = 1.25


class UnknownSide(ValueError):
    """What was typed names no run or no step of one."""


class Compared(Protocol):
    """One of two: what their rows and their sentence are made of."""

    @property
    def label(self) -> str: ...
    @property
    def numbers(self) -> Mapping[str, Any]: ...
    @property
    def crossed(self) -> Sequence[str]: ...
    @property
    def rollout_dtype(self) -> str | None: ...
    @property
    def trainer_dtype(self) -> str | None: ...


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
    def rollout_dtype(self) -> str | None:
        return self.run.rollout_dtype

    @property
    def trainer_dtype(self) -> str | None:
        return self.run.trainer_dtype

    @property
    def named(self) -> str:
        """As the address names it."""
        return self.run.name if self.whole else f"{self.run.name}:{self.step}"

    @property
    def page(self) -> str:
        name = self.run.name
        return navigation.run_page(name) if self.whole else navigation.step_page(name, self.step)


@dataclass(frozen=True, slots=True)
class Row:
    metric: NumberRow
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


def rows(a: Compared, b: Compared, names: Sequence[str]) -> list[Row]:
    """Those that either side has."""
    return [
        _row(a, b, name)
        for name in names
        if a.numbers.get(name) is not None or b.numbers.get(name) is not None
    ]


def compared_state(a: Compared, b: Compared) -> RunState:
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
    ideal = NUMBERS[name].ideal if name in SERIES else 0.0
    first, second = a - ideal, b - ideal
    # A sign that changes, or nothing to divide by, has no ratio.
    return second / first if first * second > 0 else None


def _row(a: Compared, b: Compared, name: str) -> Row:
    found = ratio(name, a.numbers.get(name), b.numbers.get(name))
    bounds = {
        f"{limit.direction} {metric_words.value(name, limit.value)}"
        for one in (a, b)
        for limit in metric_thresholds(name, one.rollout_dtype, one.trainer_dtype)
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


def _limits(one: Compared) -> str:
    count = len(one.crossed)
    return "a published limit" if count == 1 else f"{count} published limits"


LETTERS: Final = ("A", "B")
DRIFT_COLUMNS: Final = ("side", "run", "first_step", "last_step", "low", "mean", "high", "steps")
HISTOGRAM_COLUMNS: Final = ("side", "step", "above", "up_to", "tokens", "share")


def overlay_data(
    sides: Sequence[Side], metric: str, points: Sequence[list[MetricPoint]], buckets: int
) -> PlotData:
    rows = [
        (letter, one.run.name, *_numbers(group))
        for letter, one, of_run in zip(LETTERS, sides, points, strict=True)
        for group in downsample(of_run, buckets)
        if group.mean is not None
    ]
    told = metric_words.metric(metric)
    limits = {
        (limit.direction, limit.value)
        for one in sides
        for limit in metric_thresholds(metric, one.run.rollout_dtype, one.run.trainer_dtype)
    }
    about: dict[str, Any] = {
        "sides": [one.run.name for one in sides],
        "pages": [navigation.run_page(one.run.name) for one in sides],
        "metric": metric,
        "unit": told.unit,
        "logarithmic": told.scale == "log" and told.ideal == 0,
        "ideal": told.ideal,
        "form": told.form,
        "limits": [{"direction": name, "value": value} for name, value in sorted(limits)],
        "empty": "No step of either run has a value of this number.",
    }
    if any(row[-1] > 1 for row in rows):
        about["note"] = "Each point is the mean of a group of steps."
    return PlotData(DRIFT_COLUMNS, rows, about)


def histograms_data(sides: Sequence[Side], counts: Sequence[Histogram | str]) -> PlotData:
    """`counts`: why not, as a sentence, where the tokens of a step cannot be read."""
    rows = []
    for letter, one, found in zip(LETTERS, sides, counts, strict=True):
        if isinstance(found, str):
            continue
        total = found.tokens
        rows += [
            (letter, one.label, above, up_to, tokens, tokens / total)
            for above, up_to, tokens in found.rows()
        ]
    missing = [
        f"{one.label}: {found}"
        for one, found in zip(sides, counts, strict=True)
        if isinstance(found, str)
    ]
    about: dict[str, Any] = {
        "sides": [one.label for one in sides],
        "empty": " ".join(missing) or "Every Δ of both steps is 0.",
    }
    if missing:
        about["note"] = " ".join(missing)
    return PlotData(HISTOGRAM_COLUMNS, rows, about)


def _numbers(group: Bucket) -> tuple[int, int, float | None, float | None, float | None, int]:
    return (
        *(group.first_step, group.last_step),
        *(group.low, group.mean, group.high),
        group.steps,
    )
