"""The latest values of one number for many runs at once."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import JSON, Connection, func, select

from driftscope_service.store.tables import runs, steps


def recent_values(
    connection: Connection, numbers: Collection[int], metric: str, limit: int
) -> dict[int, list[float | None]]:
    """Of the `limit` highest steps of each series, ascending, by number of the run.

    One query, which reads the index of steps and then only those rows: a window over all steps
    would read every step of a long run.
    """
    latest = (
        select(steps.c.step, steps.c.series[metric].as_float().label("value"))
        .where(steps.c.run_number == runs.c.number, steps.c.superseded_by.is_(None))
        .order_by(steps.c.step.desc())
        .limit(limit)
        .correlate(runs)
        .subquery()
    )
    if connection.dialect.name == "postgresql":
        pair = func.json_build_array(latest.c.step, latest.c.value)
        pairs = func.json_agg(pair, type_=JSON)
    else:
        pair = func.json_array(latest.c.step, latest.c.value)
        pairs = func.json_group_array(pair, type_=JSON)
    rows = connection.execute(
        select(runs.c.number, select(pairs).scalar_subquery()).where(runs.c.number.in_(numbers))
    )
    # Neither system promises the order within an aggregate.
    return {
        number: [value for _, value in sorted(found or (), key=_step)] for number, found in rows
    }


def _step(pair: tuple[int, float | None]) -> int:
    return pair[0]
