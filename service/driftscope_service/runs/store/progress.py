"""How far a run is: running, resumed, finished or stale, in Python for a row and in SQL for many.

A run that ends without saying so is stale after ten of its own step intervals, and after ten
minutes at least: the same numbers as the alert RunReportsStopped.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args

from sqlalchemy import ColumnElement, Dialect, Float, and_, case, cast, extract, func, or_

from driftscope_service.runs.store.runs import Run
from driftscope_service.store.tables import runs

Progress: TypeAlias = Literal["running", "resumed", "finished", "stale"]
PROGRESSES: Final[tuple[Progress, ...]] = get_args(Progress)
STALE_INTERVALS: Final = 10
STALE_AFTER: Final = timedelta(minutes=10)
#: Of a run with fewer steps than make an interval: the first ones come after engines have loaded.
STALE_UNPACED_AFTER: Final = timedelta(hours=1)
#: So many steps have one interval between them.
PACED_FROM: Final = 2


def run_progress(run: Run, now: datetime) -> Progress:
    """`resumed`: it is running, in a later attempt than its first."""
    if run.finished_at is not None:
        return "finished"
    if now - run.updated_at > _patience(run):
        return "stale"
    return "resumed" if run.attempt > 1 else "running"


def _patience(run: Run) -> timedelta:
    if run.complete_steps < PACED_FROM or run.last_step_at is None:
        return STALE_UNPACED_AFTER
    interval = (run.last_step_at - run.created_at) / (run.complete_steps - 1)
    return max(STALE_AFTER, STALE_INTERVALS * interval)


def has_progress(wanted: Progress, now: datetime, dialect: Dialect) -> ColumnElement[bool]:
    """The condition on `runs` that run_progress gives `wanted`."""
    ended = runs.c.finished_at.is_not(None)
    if wanted == "finished":
        return ended
    stale = _silent(now, dialect)
    if wanted == "stale":
        return and_(~ended, stale)
    later = runs.c.attempt > 1
    return and_(~ended, ~stale, later if wanted == "resumed" else ~later)


def _silent(now: datetime, dialect: Dialect) -> ColumnElement[bool]:
    paced = and_(runs.c.complete_steps >= PACED_FROM, runs.c.last_step_at.is_not(None))
    lasted = _seconds(runs.c.last_step_at, dialect) - _seconds(runs.c.created_at, dialect)
    # 1 where there is no interval: SQL may work out what the case does not need.
    gaps = case((runs.c.complete_steps >= PACED_FROM, runs.c.complete_steps - 1), else_=1)
    silence = now.timestamp() - _seconds(runs.c.updated_at, dialect)
    slow = silence > STALE_INTERVALS * lasted / gaps
    return or_(
        and_(paced, runs.c.updated_at < now - STALE_AFTER, slow),
        and_(~paced, runs.c.updated_at < now - STALE_UNPACED_AFTER),
    )


#: Julian day of 1970-01-01T00:00:00Z.
UNIX_EPOCH_DAY: Final = 2_440_587.5
DAY_S: Final = 86_400.0


def _seconds(column: ColumnElement[datetime], dialect: Dialect) -> ColumnElement[float]:
    """Since 1970."""
    if dialect.name == "postgresql":
        return cast(extract("epoch", column), Float)
    return (func.julianday(column, type_=Float) - UNIX_EPOCH_DAY) * DAY_S
