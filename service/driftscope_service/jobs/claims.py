"""Who works on a job: claims, leases and how an attempt ends.

A claim raises the job's attempt, which is its fencing token: every later write names the attempt
and its owner, and is refused where the table has another. So a job has effects once, whatever an
instance that was cut off or stood still believes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from driftscope_probes.progress import Progress
from driftscope_service.jobs.job import (
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    restored_meanwhile,
)
from driftscope_service.jobs.retries import MOST_WAIT_S, final, wait_before_next
from driftscope_service.jobs.store import DONE, WAITING, JobRepository, progress_columns
from driftscope_service.store.leases import database_now
from driftscope_service.store.tables import job_attempts, jobs

#: Longer than a restart of the database or a swapping machine takes; so long does a job stand
#: still when its instance is gone.
LEASE_S: Final = 30.0
STARTING: Final = Progress("starting a process", 0.0)
TRYING_AGAIN: Final = Progress("waiting for another attempt", 0.0)


class LeaseLost(Exception):
    """The job is no longer this owner's: it was taken away, tried again, or has ended."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who claims jobs: one process of the service."""

    instance: str
    host: str
    executor: str  # its name


@dataclass(frozen=True, slots=True)
class Fence:
    """What a write must name."""

    job_id: str
    attempt: int
    owner: str | None  # an instance; None: claimed by a version without leases

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.job_id}"


@dataclass(frozen=True, slots=True)
class Claim:
    job: Job
    fence: Fence


@dataclass(frozen=True, slots=True)
class HeldLease:
    """Of a running job, as the table has it."""

    fence: Fence
    host: str
    expires_at: datetime | None  # None: claimed by a version without leases
    expired: bool  # by the clock of the database


class ClaimRepository:
    """Works within the transaction of `connection`; changing methods need a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs = JobRepository(connection)

    def anything_due(self) -> bool:
        query = select(jobs.c.id).where(self._due()).limit(1)
        return self._connection.execute(query).first() is not None

    def claim_next(self, owner: Owner) -> Claim | None:
        """The oldest job that is due, now running; None if nothing waits."""
        now = database_now(self._connection)
        # A job that another instance is claiming at this moment is passed over. On SQLite, where a
        # write transaction is alone, the clause is empty.
        waiting = self._connection.execute(
            select(jobs.c.id, jobs.c.attempt)
            .where(self._due())
            .order_by(jobs.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if waiting is None:
            return None
        fence = Fence(waiting.id, waiting.attempt + 1, owner.instance)
        self._connection.execute(
            update(jobs)
            .where(jobs.c.id == fence.job_id)
            .values(
                state=JobState.RUNNING,
                started_at=now,
                attempt=fence.attempt,
                lease_owner=fence.owner,
                lease_expires_at=now + timedelta(seconds=LEASE_S),
                not_before=None,
                **progress_columns(STARTING),
            )
        )
        self._connection.execute(
            insert(job_attempts).values(
                job_id=fence.job_id,
                attempt=fence.attempt,
                owner=owner.instance,
                host=owner.host,
                executor=owner.executor,
                started_at=now,
                heartbeat_at=now,
            )
        )
        return Claim(self._job(fence), fence)

    def renew(self, fences: Iterable[Fence]) -> list[Fence]:
        """Returns those that are lost."""
        now = database_now(self._connection)
        lost = []
        for fence in fences:
            try:
                self._change(fence, lease_expires_at=now + timedelta(seconds=LEASE_S))
            except LeaseLost:
                lost.append(fence)
            else:
                self._attempt(fence, heartbeat_at=now)
        return lost

    def cancel_requested(self, job_ids: Sequence[str]) -> set[str]:
        """Which of them are to be cancelled; the request may have come to another instance."""
        query = select(jobs.c.id).where(
            jobs.c.id.in_(job_ids), jobs.c.cancel_requested_at.is_not(None)
        )
        return set(self._connection.execute(query).scalars())

    def set_progress(self, fence: Fence, progress: Progress) -> None:
        self._change(fence, **progress_columns(progress))

    def succeed(self, fence: Fence) -> None:
        self._end(fence, JobState.SUCCEEDED, AttemptOutcome.SUCCEEDED, **progress_columns(DONE))

    def cancelled(self, fence: Fence, log_tail: str = "") -> None:
        self._end(fence, JobState.CANCELLED, AttemptOutcome.CANCELLED, log_tail)

    def end_without_report(
        self,
        fence: Fence,
        error: JobError,
        outcome: AttemptOutcome = AttemptOutcome.FAILED,
        *,
        log_tail: str = "",
        total_time_limit_s: float = float("inf"),
        unless_renewed_since: HeldLease | None = None,
    ) -> Job:
        """The job as it then is: cancelled where that was asked for, queued where another attempt
        may succeed, else failed. Raises LeaseLost, and then has changed nothing."""
        self._change(fence, unless_renewed_since, lease_expires_at=None)
        self._attempt(
            fence,
            finished_at=database_now(self._connection),
            outcome=outcome,
            reason=error.to_dict(),
            log_tail=log_tail or None,
        )
        job = self._job(fence)
        wait_s = wait_before_next(error, job.attempts)
        if job.cancel_requested_at is not None:
            self._finish(fence, JobState.CANCELLED)
        elif wait_s is None or spent_s(job) >= total_time_limit_s:
            self._finish(fence, JobState.FAILED, error=final(error, job.attempts).to_dict())
        else:
            self._queue_again(fence, wait_s)
        return self._job(fence)

    def held(self) -> list[HeldLease]:
        """Of every running job."""
        now = database_now(self._connection)
        joined = and_(job_attempts.c.job_id == jobs.c.id, job_attempts.c.attempt == jobs.c.attempt)
        rows = self._connection.execute(
            select(
                *(jobs.c.id, jobs.c.attempt, jobs.c.lease_owner, jobs.c.lease_expires_at),
                job_attempts.c.host,
            )
            .outerjoin_from(jobs, job_attempts, joined)
            .where(jobs.c.state == JobState.RUNNING)
            .order_by(jobs.c.number)
        )
        return [
            HeldLease(
                Fence(row.id, row.attempt, row.lease_owner),
                row.host or "",
                row.lease_expires_at,
                row.lease_expires_at is None or row.lease_expires_at <= now,
            )
            for row in rows
        ]

    def end_restored(self) -> None:
        """In a database that was restored from a backup: what ran when it was made may run still,
        for the service that it was made of. Nothing here may take its processes for its own."""
        for lease in self.held():
            error = JobError.of(restored_meanwhile(str(lease.fence.owner), lease.host))
            self.end_without_report(lease.fence, error, AttemptOutcome.LOST)

    def _due(self) -> ColumnElement[bool]:
        """A moment further ahead than any backoff is left from before the clock was set back."""
        now = database_now(self._connection)
        return and_(
            jobs.c.state == JobState.QUEUED,
            or_(
                jobs.c.not_before.is_(None),
                jobs.c.not_before <= now,
                jobs.c.not_before > now + timedelta(seconds=MOST_WAIT_S),
            ),
        )

    def _queue_again(self, fence: Fence, wait_s: float) -> None:
        now = database_now(self._connection)
        self._change(
            fence,
            state=JobState.QUEUED,
            started_at=None,
            lease_owner=None,
            not_before=now + timedelta(seconds=wait_s),
            **progress_columns(TRYING_AGAIN if wait_s else WAITING),
        )

    def _end(
        self,
        fence: Fence,
        state: JobState,
        outcome: AttemptOutcome,
        log_tail: str = "",
        **values: Any,
    ) -> None:
        self._finish(fence, state, **values)
        self._attempt(
            fence,
            finished_at=database_now(self._connection),
            outcome=outcome,
            log_tail=log_tail or None,
        )

    def _finish(self, fence: Fence, state: JobState, **values: Any) -> None:
        now = database_now(self._connection)
        freed = {"lease_owner": None, "lease_expires_at": None}
        self._change(fence, state=state, finished_at=now, **freed, **values)

    def _change(self, fence: Fence, seen: HeldLease | None = None, **values: Any) -> None:
        """Refused where the fence is stale, or the lease was renewed after it was `seen`."""
        statement = update(jobs).where(
            jobs.c.id == fence.job_id,
            jobs.c.state == JobState.RUNNING,
            jobs.c.attempt == fence.attempt,
            # `IS` also where a version without leases claimed it.
            jobs.c.lease_owner.is_not_distinct_from(fence.owner),
        )
        if seen is not None:
            statement = statement.where(
                jobs.c.lease_expires_at.is_not_distinct_from(seen.expires_at)
            )
        if self._connection.execute(statement.values(**values)).rowcount != 1:
            raise LeaseLost(f"{fence} is no longer of {fence.owner}")

    def _attempt(self, fence: Fence, **values: Any) -> None:
        self._connection.execute(
            update(job_attempts)
            .where(job_attempts.c.job_id == fence.job_id, job_attempts.c.attempt == fence.attempt)
            .values(**values)
        )

    def _job(self, fence: Fence) -> Job:
        job = self._jobs.get(fence.job_id)
        assert job is not None
        return job


def spent_s(job: Job) -> float:
    """What its attempts took together. A clock that was set back takes nothing away."""
    return sum(
        max(0.0, (one.finished_at - one.started_at).total_seconds())
        for one in job.attempts
        if one.finished_at is not None
    )
