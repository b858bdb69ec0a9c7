"""The job table, but for what the owner of a running job writes: that is in claims.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from driftscope_probes.progress import Progress
from driftscope_service.jobs.job import AttemptOutcome, Job, JobAttempt, JobError, JobState
from driftscope_service.store.retention import remove_jobs
from driftscope_service.store.tables import (
    PROGRESS_TEXT_LENGTH,
    job_attempts,
    jobs,
    new_id,
    reports,
)

WAITING = Progress("waiting for a free slot", 0.0)
DONE = Progress("done", 1.0)


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What the page of a job says of its report."""

    sentence: str | None  # None: its summary has none
    origin: dict[str, str] | None  # host and command; None: it was made here


class JobRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        kind: str,
        model: str | None,
        request: Mapping[str, Any],
        *,
        created_by: str | None = None,
    ) -> Job:
        """created_by: a key; None: no keys, a schedule, the command line."""
        job_id = new_id("job")
        self._connection.execute(
            insert(jobs).values(
                id=job_id,
                kind=kind,
                state=JobState.QUEUED,
                model=model,
                request=dict(request),
                created_at=_now(),
                created_by=created_by,
                **progress_columns(WAITING),
            )
        )
        return self._require(job_id)

    def add_succeeded(self, kind: str, model: str | None, request: Mapping[str, Any]) -> Job:
        """A job whose work was done elsewhere; no executor ever sees it."""
        job = self.add(kind, model, request)
        self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id)
            .values(
                state=JobState.SUCCEEDED,
                started_at=job.created_at,
                finished_at=_now(),
                **progress_columns(DONE),
            )
        )
        return self._require(job.id)

    def get(self, job_id: str) -> Job | None:
        found = self._read(_selection().where(jobs.c.id == job_id))
        return found[0] if found else None

    def request_of(self, job_id: str) -> dict[str, Any]:
        request: dict[str, Any] = self._connection.execute(
            select(jobs.c.request).where(jobs.c.id == job_id)
        ).scalar_one()
        return request

    def page(
        self, limit: int, *, before: int | None = None, state: JobState | None = None
    ) -> list[Job]:
        """Newest first; `before` is the number of the previous page's last job."""
        statement = _selection().order_by(jobs.c.number.desc()).limit(limit)
        if before is not None:
            statement = statement.where(jobs.c.number < before)
        if state is not None:
            statement = statement.where(jobs.c.state == state)
        return self._read(statement)

    def count(self, state: JobState) -> int:
        return self.counts()[state]

    def counts(self) -> dict[JobState, int]:
        rows = self._connection.execute(
            select(jobs.c.state, func.count()).group_by(jobs.c.state)
        ).all()
        counts = {JobState(state): number for state, number in rows}
        return {state: counts.get(state, 0) for state in JobState}

    def succeeded_like(self, job: Job, limit: int) -> list[Job]:
        """The last ones of the kind and model of `job` that ran here; newest first."""
        same_model = jobs.c.model.is_(None) if job.model is None else jobs.c.model == job.model
        statement = (
            _selection()
            .where(jobs.c.kind == job.kind, same_model, jobs.c.state == JobState.SUCCEEDED)
            # What was done elsewhere took no time here.
            .where(jobs.c.started_at != jobs.c.created_at)
            .order_by(jobs.c.number.desc())
            .limit(limit)
        )
        return self._read(statement)

    def report_facts(self, report_id: str) -> ReportFacts:
        row = self._connection.execute(
            select(reports.c.summary, reports.c.origin).where(reports.c.id == report_id)
        ).one()
        return ReportFacts(row.summary.get("sentence"), row.origin)

    def request_cancel(self, job_id: str) -> Job | None:
        """A queued job is cancelled at once, a running one is marked; a finished one unchanged."""
        now = _now()
        queued = update(jobs).where(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED)
        running = update(jobs).where(
            jobs.c.id == job_id,
            jobs.c.state == JobState.RUNNING,
            jobs.c.cancel_requested_at.is_(None),
        )
        cancelled = queued.values(
            state=JobState.CANCELLED, finished_at=now, cancel_requested_at=now, not_before=None
        )
        if self._connection.execute(cancelled).rowcount == 0:
            self._connection.execute(running.values(cancel_requested_at=now))
        return self.get(job_id)

    def log_tail(self, job_id: str, attempt: int | None = None) -> str:
        """What is kept of the log of an attempt without a report; by default, of the newest."""
        statement = select(job_attempts.c.log_tail).where(job_attempts.c.job_id == job_id)
        if attempt is not None:
            statement = statement.where(job_attempts.c.attempt == attempt)
        newest = statement.order_by(job_attempts.c.attempt.desc()).limit(1)
        return self._connection.execute(newest).scalar_one_or_none() or ""

    def remove(self, job_id: str) -> None:
        """A finished one without a report; a schedule that started it forgets it."""
        remove_jobs(self._connection, [job_id])

    def _read(self, statement: Select[Any]) -> list[Job]:
        rows = self._connection.execute(statement).all()
        attempts = self._attempts([row.id for row in rows])
        return [_job(row, attempts.get(row.id, ())) for row in rows]

    def _attempts(self, job_ids: Iterable[str]) -> dict[str, tuple[JobAttempt, ...]]:
        """Without their logs."""
        columns = [column for column in job_attempts.c if column.name != "log_tail"]
        rows = self._connection.execute(
            select(*columns)
            .where(job_attempts.c.job_id.in_(job_ids))
            .order_by(job_attempts.c.attempt)
        )
        found: dict[str, list[JobAttempt]] = defaultdict(list)
        for row in rows:
            found[row.job_id].append(_attempt(row))
        return {job_id: tuple(attempts) for job_id, attempts in found.items()}

    def _require(self, job_id: str) -> Job:
        job = self.get(job_id)
        assert job is not None
        return job


def _selection() -> Select[Any]:
    """Every column but the request, which may be a megabyte."""
    columns: Sequence[Any] = [column for column in jobs.c if column.name != "request"]
    return select(*columns, reports.c.id.label("report_id")).outerjoin_from(
        jobs, reports, reports.c.job_id == jobs.c.id
    )


def _job(row: Row[Any], attempts: tuple[JobAttempt, ...]) -> Job:
    fields = row._mapping
    error = fields["error"]
    return Job(
        number=fields["number"],
        id=fields["id"],
        kind=fields["kind"],
        state=JobState(fields["state"]),
        model=fields["model"],
        progress=Progress(fields["stage"], fields["fraction"], fields["detail"]),
        error=None if error is None else JobError(**error),
        report_id=fields["report_id"],
        cancel_requested_at=fields["cancel_requested_at"],
        created_at=fields["created_at"],
        started_at=fields["started_at"],
        finished_at=fields["finished_at"],
        not_before=fields["not_before"],
        attempts=attempts,
    )


def _attempt(row: Row[Any]) -> JobAttempt:
    return JobAttempt(
        attempt=row.attempt,
        owner=row.owner,
        host=row.host,
        executor=row.executor,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=None if row.outcome is None else AttemptOutcome(row.outcome),
        reason=None if row.reason is None else JobError(**row.reason),
    )


def progress_columns(progress: Progress) -> dict[str, Any]:
    return {
        "stage": _storable(progress.stage),
        "fraction": min(1.0, max(0.0, progress.fraction)),
        "detail": _storable(progress.detail),
    }


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL."""
    return text[:PROGRESS_TEXT_LENGTH].replace("\x00", "\ufffd")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LastJob:
    kind: str
    state: JobState
    seconds: float


class JobTimes:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def oldest_queued_at(self) -> datetime | None:
        """Since when a job waits, at the longest; one that waits for another attempt, since that
        was due."""
        waits_since = func.coalesce(jobs.c.not_before, jobs.c.created_at)
        queued_at: datetime | None = self._connection.execute(
            select(waits_since)
            .where(jobs.c.state == JobState.QUEUED)
            .order_by(waits_since)
            .limit(1)
        ).scalar_one_or_none()
        return queued_at

    def last_finished(self) -> list[LastJob]:
        """The last job of every kind and final state that ran here."""
        newest = (
            select(func.max(jobs.c.number))
            .where(jobs.c.started_at.is_not(None), jobs.c.finished_at.is_not(None))
            # What was done elsewhere took no time here.
            .where(jobs.c.started_at != jobs.c.created_at)
            .group_by(jobs.c.kind, jobs.c.state)
        )
        rows = self._connection.execute(
            select(jobs.c.kind, jobs.c.state, jobs.c.started_at, jobs.c.finished_at)
            .where(jobs.c.number.in_(newest))
            .order_by(jobs.c.kind, jobs.c.state)
        )
        return [
            LastJob(kind, JobState(state), (finished - started).total_seconds())
            for kind, state, started, finished in rows
        ]
