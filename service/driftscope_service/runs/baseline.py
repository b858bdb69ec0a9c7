"""What a list says of a run beside its row: tags, and how it compares with the baseline.

In: runs. Out: Marks by number of the run, in as many queries for five hundred as for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from driftscope_service.numbers.metric_words import number
from driftscope_service.pages.navigation import with_query
from driftscope_service.runs.store.marks import Baseline, RunMarks
from driftscope_service.runs.store.runs import Run

#: The number that runs are compared by.
METRIC: Final = "abs_diff_mean"


@dataclass(frozen=True, slots=True)
class AgainstBaseline:
    """The last step of a run held against that of the baseline of its model."""

    run: str
    baseline: str
    times: float | None  # mean |Δ| over that of the baseline; None: either is undefined, or 0

    @property
    def words(self) -> str:
        if self.times is None:
            return "mean |Δ| cannot be compared"
        return f"mean |Δ| {number(self.times)} times"

    @property
    def page(self) -> str:
        return with_query("/compare", a=self.baseline, b=self.run)


@dataclass(frozen=True, slots=True)
class Marks:
    tags: tuple[str, ...] = ()
    against: AgainstBaseline | None = None  # None: its model has no baseline, or it is the baseline


def marks_of(connection: Connection, runs: Sequence[Run]) -> Mapping[int, Marks]:
    marks = RunMarks(connection)
    numbers = [run.number for run in runs]
    tags = marks.tags(numbers)
    baselines = marks.baselines({run.model for run in runs if run.model is not None})
    values: Mapping[int, float] = {}
    if baselines:
        held = [one.number for one in baselines.values()]
        compared = [run.number for run in runs if run.model in baselines]
        values = marks.last_values([*held, *compared], METRIC)
    return {
        run.number: Marks(tuple(tags.get(run.number, ())), _against(run, baselines, values))
        for run in runs
    }


def _against(
    run: Run, baselines: Mapping[str, Baseline], values: Mapping[int, float]
) -> AgainstBaseline | None:
    baseline = None if run.model is None else baselines.get(run.model)
    if baseline is None or baseline.number == run.number:
        return None
    own, held = values.get(run.number), values.get(baseline.number)
    times = None if own is None or not held else own / held
    return AgainstBaseline(run.name, baseline.name, times)
