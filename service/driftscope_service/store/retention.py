"""Which jobs, reports and nights have been kept long enough, taken out of the database.

Out: the ids of what is gone, for whoever commits to remove the files afterwards. Kept whatever the
settings say: the last report of every kind and model, the last night of every configuration,
reports that a verdict rests on, and those of steps of a pinned run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    update,
)

from driftscope_service.store.tables import (
    determinism_verdicts,
    job_attempts,
    jobs,
    kernel_verdicts,
    nightly_runs,
    reports,
    runs,
    schedules,
)

#: In one transaction, for which every other writer waits.
MOST: Final = 500
#: Of these the night is the verdict, and is counted by itself.
NIGHTLY: Final = "nightly"
_FINISHED: Final = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Kept:
    """None: for ever, or as many as there are. What is over either limit goes."""

    job_days: float | None = None  # finished ones without a report
    report_days: float | None = None
    reports: int | None = None  # of every kind and model
    night_days: float | None = None
    nights: int | None = None  # of every configuration

    @property
    def everything(self) -> bool:
        return self == Kept()


@dataclass(frozen=True, slots=True)
class Expired:
    jobs: tuple[str, ...]  # ids, those of the reports and nights too
    reports: tuple[str, ...]  # ids, those of the nights too
    nights: int


def expire(connection: Connection, kept: Kept, now: datetime) -> Expired:
    """At most MOST of each: call it again until nothing is left. Needs a write transaction."""
    nights = _expired_nights(connection, kept, now)
    old_reports = [*_expired_reports(connection, kept, now), *nights]
    of_reports = _remove_reports(connection, old_reports)
    remove_jobs(connection, of_reports)
    old_jobs = _expired_jobs(connection, kept, now)
    remove_jobs(connection, old_jobs)
    return Expired((*of_reports, *old_jobs), tuple(old_reports), len(nights))


def _over(
    rank: ColumnElement[int],
    at: ColumnElement[datetime],
    most: int | None,
    days: float | None,
    now: datetime,
) -> ColumnElement[bool]:
    """Over one of the limits, and not the last one."""
    over: ColumnElement[bool] = false()
    if most is not None:
        over = or_(over, rank > most)
    if days is not None:
        over = or_(over, at < now - timedelta(days=days))
    return and_(over, rank > 1)


def _expired_reports(connection: Connection, kept: Kept, now: datetime) -> list[str]:
    rank = (
        func.row_number()
        .over(partition_by=(reports.c.kind, reports.c.model), order_by=reports.c.number.desc())
        .label("rank")
    )
    ranked = (
        select(reports.c.id, reports.c.number, reports.c.created_at, rank)
        .where(reports.c.kind != NIGHTLY)
        .subquery()
    )
    of_run = reports.c.summary["of_step"]["run"].as_string()
    pinned = exists().where(runs.c.name == of_run, runs.c.pinned_at.is_not(None))
    over = _over(ranked.c.rank, ranked.c.created_at, kept.reports, kept.report_days, now)
    found = connection.execute(
        select(ranked.c.id)
        .join(reports, reports.c.id == ranked.c.id)
        .where(over, ~_holds_verdicts(ranked.c.id), ~pinned)
        .order_by(ranked.c.number)
        .limit(MOST)
    )
    return [row.id for row in found]


def _expired_nights(connection: Connection, kept: Kept, now: datetime) -> list[str]:
    """The ids of their reports; their rows are removed."""
    rank = (
        func.row_number()
        .over(
            partition_by=nightly_runs.c.config_sha256,
            order_by=(nightly_runs.c.finished_at.desc(), nightly_runs.c.number.desc()),
        )
        .label("rank")
    )
    ranked = select(nightly_runs.c.report_id, nightly_runs.c.finished_at, rank).subquery()
    over = _over(ranked.c.rank, ranked.c.finished_at, kept.nights, kept.night_days, now)
    found = connection.execute(
        select(ranked.c.report_id)
        .where(over, ~_in_verdicts(ranked.c.report_id))
        .order_by(ranked.c.finished_at)
        .limit(MOST)
    )
    ids = [row.report_id for row in found]
    connection.execute(delete(nightly_runs).where(nightly_runs.c.report_id.in_(ids)))
    return ids


def _in_verdicts(report_id: ColumnElement[str]) -> ColumnElement[bool]:
    return or_(
        exists().where(kernel_verdicts.c.report_id == report_id),
        exists().where(determinism_verdicts.c.report_id == report_id),
    )


def _holds_verdicts(report_id: ColumnElement[str]) -> ColumnElement[bool]:
    return or_(_in_verdicts(report_id), exists().where(nightly_runs.c.report_id == report_id))


def _remove_reports(connection: Connection, ids: Sequence[str]) -> list[str]:
    """The ids of their jobs."""
    gone = delete(reports).where(reports.c.id.in_(ids)).returning(reports.c.job_id)
    return [row.job_id for row in connection.execute(gone)]


def _expired_jobs(connection: Connection, kept: Kept, now: datetime) -> list[str]:
    if kept.job_days is None:
        return []
    has_report = exists().where(reports.c.job_id == jobs.c.id)
    found = connection.execute(
        select(jobs.c.id)
        .where(
            jobs.c.state.in_(_FINISHED),
            jobs.c.finished_at < now - timedelta(days=kept.job_days),
            ~has_report,
        )
        .order_by(jobs.c.number)
        .limit(MOST)
    )
    return [row.id for row in found]


def remove_jobs(connection: Connection, ids: Sequence[str]) -> None:
    """Finished ones without a report; schedules that started them forget them."""
    statements: Sequence[Any] = (
        delete(job_attempts).where(job_attempts.c.job_id.in_(ids)),
        update(schedules).where(schedules.c.last_job_id.in_(ids)).values(last_job_id=None),
        delete(jobs).where(jobs.c.id.in_(ids)),
    )
    for statement in statements:
        connection.execute(statement)
