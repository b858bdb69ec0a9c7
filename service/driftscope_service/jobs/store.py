"""The job table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from driftscope_probes.progress import Progress
from driftscope_service.jobs.job import UNFINISHED, Job, JobError, JobState
from driftscope_service.store.tables import PROGRESS_TEXT_LENGTH, jobs, new_id, reports, schedules

WAITING = Progress("waiting for a free slot", 0.0)
STARTING = Progress("starting a process", 0.0)
DONE = Progress("done", 1.0)
#: From which states a job may reach each final one.
_SOURCES = {
    JobState.SUCCEEDED: (JobState.RUNNING,),
    JobState.FAILED: UNFINISHED,
    JobState.CANCELLED: UNFINISHED,
}


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What the page of a job says of its report."""

    sentence: str | None  # None: its summary has none
    origin: dict[str, str] | None  # host and command; None: it was made here


class JobRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, kind: str, model: str | None, request: Mapping[str, Any]) -> Job:
        job_id = new_id("job")
        self._connection.execute(
            insert(jobs).values(
                id=job_id,
                kind=kind,
                state=JobState.QUEUED,
                model=model,
                request=dict(request),
                created_at=_now(),
                **_progress_columns(WAITING),
            )
        )
        return self._require(job_id)

    def add_succeeded(self, kind: str, model: str | None, request: Mapping[str, Any]) -> Job:
        """A job whose work was done elsewhere; no executor ever sees it."""
        job = self.add(kind, model, request)
        self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id)
            .values(state=JobState.RUNNING, started_at=job.created_at)
        )
        self.succeed(job.id)
        return self._require(job.id)

    def get(self, job_id: str) -> Job | None:
        row = self._connection.execute(_selection().where(jobs.c.id == job_id)).one_or_none()
        return None if row is None else _job(row)

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
        return [_job(row) for row in self._connection.execute(statement)]

    def count(self, state: JobState) -> int:
        return self.counts()[state]

    def counts(self) -> dict[JobState, int]:
        rows = self._connection.execute(
            select(jobs.c.state, func.count()).group_by(jobs.c.state)
        ).all()
        counts = {JobState(state): number for state, number in rows}
        return {state: counts.get(state, 0) for state in JobState}

    def oldest_queued(self) -> str | None:
        return self._connection.execute(
            select(jobs.c.id)
            .where(jobs.c.state == JobState.QUEUED)
            .order_by(jobs.c.number)
            .limit(1)
        ).scalar_one_or_none()

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
        return [_job(row) for row in self._connection.execute(statement)]

    def report_facts(self, report_id: str) -> ReportFacts:
        row = self._connection.execute(
            select(reports.c.summary, reports.c.origin).where(reports.c.id == report_id)
        ).one()
        return ReportFacts(row.summary.get("sentence"), row.origin)

    def claim_next(self) -> Job | None:
        """The oldest queued job, now running; None if nothing waits."""
        job_id = self.oldest_queued()
        if job_id is None:
            return None
        self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(state=JobState.RUNNING, started_at=_now(), **_progress_columns(STARTING))
        )
        return self._require(job_id)

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """For a running job; no effect on a finished one."""
        self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING)
            .values(**_progress_columns(progress))
        )

    def request_cancel(self, job_id: str) -> Job | None:
        """A queued job is cancelled at once, a running one is marked; a finished one unchanged."""
        job = self.get(job_id)
        if job is None:
            return None
        if job.state is JobState.QUEUED:
            self._finish(job_id, JobState.CANCELLED, cancel_requested_at=_now())
        elif job.state is JobState.RUNNING and job.cancel_requested_at is None:
            self._connection.execute(
                update(jobs).where(jobs.c.id == job_id).values(cancel_requested_at=_now())
            )
        return self._require(job_id)

    def succeed(self, job_id: str) -> None:
        self._finish(job_id, JobState.SUCCEEDED, **_progress_columns(DONE))

    def fail(self, job_id: str, error: JobError) -> None:
        self._finish(job_id, JobState.FAILED, error=error.to_dict())

    def cancelled(self, job_id: str) -> None:
        self._finish(job_id, JobState.CANCELLED)

    def remove(self, job_id: str) -> None:
        """A finished one without a report; a schedule that started it forgets it."""
        self._connection.execute(
            update(schedules).where(schedules.c.last_job_id == job_id).values(last_job_id=None)
        )
        self._connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def finish_unfinished(self, error_of: Callable[[Job], JobError]) -> list[Job]:
        """End jobs without a process: cancelled if that was requested, else failed."""
        statement = _selection().where(jobs.c.state.in_(UNFINISHED)).order_by(jobs.c.number)
        left = [_job(row) for row in self._connection.execute(statement)]
        for job in left:
            if job.cancel_requested_at is None:
                self.fail(job.id, error_of(job))
            else:
                self.cancelled(job.id)
        return left

    def _finish(self, job_id: str, state: JobState, **values: Any) -> None:
        changed = self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state.in_(_SOURCES[state]))
            .values(state=state, finished_at=_now(), **values)
        ).rowcount
        assert changed == 1, f"{job_id} cannot become {state}"

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


def _job(row: Row[Any]) -> Job:
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
    )


def _progress_columns(progress: Progress) -> dict[str, str | float]:
    return {
        "stage": progress.stage[:PROGRESS_TEXT_LENGTH],
        "fraction": min(1.0, max(0.0, progress.fraction)),
        "detail": progress.detail[:PROGRESS_TEXT_LENGTH],
    }


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
        queued_at: datetime | None = self._connection.execute(
            select(jobs.c.created_at)
            .where(jobs.c.state == JobState.QUEUED)
            .order_by(jobs.c.number)
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
