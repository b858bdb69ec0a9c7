"""Steps of a run as pages show them: one number over all steps, or a few steps with all numbers.

In: the number of a run. Out: values and points; no analysis is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from driftscope_service.store.step_repository import SeriesPoint
from driftscope_service.store.tables import steps


@dataclass(frozen=True, slots=True)
class MetricPoint:
    step: int
    value: float | None
    crossed: bool  # this metric crossed a limit


def latest_values(
    connection: Connection, run_number: int, metric: str, limit: int
) -> list[float | None]:
    """Of the highest steps, ascending."""
    value = steps.c.series[metric].as_float()
    rows = connection.execute(
        select(value)
        .where(steps.c.run_number == run_number)
        .order_by(steps.c.step.desc())
        .limit(limit)
    )
    return [row[0] for row in rows][::-1]


def metric_points(
    connection: Connection,
    run_number: int,
    metric: str,
    *,
    first: int = 0,
    last: int | None = None,
) -> list[MetricPoint]:
    """Every complete step from `first` to `last`, both included, ascending."""
    value = steps.c.series[metric].as_float()
    statement = (
        select(steps.c.step, value, steps.c.crossed)
        .where(steps.c.run_number == run_number, steps.c.step >= first)
        .order_by(steps.c.step)
    )
    if last is not None:
        statement = statement.where(steps.c.step <= last)
    return [
        MetricPoint(step, found, metric in crossed)
        for step, found, crossed in connection.execute(statement)
    ]


def points_before(
    connection: Connection, run_number: int, limit: int, *, before: int | None
) -> list[SeriesPoint]:
    """The highest steps below `before`, or of all, descending."""
    names = SeriesPoint.__dataclass_fields__
    statement = (
        select(*(steps.c[name] for name in names))
        .where(steps.c.run_number == run_number)
        .order_by(steps.c.step.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(steps.c.step < before)
    return [SeriesPoint(*row) for row in connection.execute(statement)]
