"""The thread that starts what is due: at most one job per schedule and moment.

The moment is moved on in the transaction that queues the job, so that neither a crash nor a second
start of the service repeats or loses it. Where several processes of the service run, one at a time
looks after the schedules; when it ends or dies, another one takes over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from driftscope_service.auth.audit import SERVICE, Action, AuditLog
from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.store import JobRepository
from driftscope_service.schedule.store import (
    MISSED_AFTER_S,
    Missed,
    Schedule,
    ScheduleRepository,
    next_moment,
)
from driftscope_service.store.database import Database
from driftscope_service.store.leases import Turn, database_now

#: Cron counts in minutes; this is close enough to the start of one.
TICK_S = 5.0
#: Half a minute after the one that had it died, another takes over: far less than a moment may be
#: late before it counts as missed.
LEASE_S = 30.0
LEASE = "scheduler"
_log = logging.getLogger("driftscope")


class Scheduler:
    def __init__(
        self,
        database: Database,
        most_queued: int,
        announce: Callable[[], None],
        *,
        instance: str = "instance_alone",
    ) -> None:
        """announce: tells the executor that a job has been queued. instance: whose it is."""
        self._database = database
        self._turn = Turn(database, LEASE, instance, LEASE_S)
        self._most_queued = most_queued
        self._announce = announce
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """May be called twice."""
        self._stopping.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self.tick(self._now())
            except OperationalError as error:
                _log.error("schedules wait: the database does not answer: %s", error)
            except Exception:
                # A thread that ends would let every night be missed.
                _log.exception("the scheduler failed")
            self._stopping.wait(TICK_S)
        self._turn.release()

    def _now(self) -> datetime:
        """The database's: a machine whose clock is wrong starts nothing early."""
        with self._database.read() as connection:
            return database_now(connection)

    def tick(self, now: datetime) -> int:
        """Deal with every due moment; returns how many jobs were queued."""
        if not self._turn.taken():
            return 0
        with self._database.read() as connection:
            if not ScheduleRepository(connection).due(now):
                return 0
        with self._database.write() as connection:
            if not self._turn.still_mine(connection):
                return 0
            due = ScheduleRepository(connection).due(now)
            queued = sum(self._deal_with(schedule, now, connection) for schedule in due)
        for _ in range(queued):
            self._announce()
        return queued

    def _deal_with(self, schedule: Schedule, now: datetime, connection: Connection) -> bool:
        reason = self._reason_against(schedule, now, connection)
        job = None
        if reason is None:
            jobs = JobRepository(connection)
            job = jobs.add(schedule.kind, schedule.request.get("model"), schedule.request)
            note = f"started as {job.id}"
            AuditLog(connection).add(
                SERVICE,
                Action.JOB_STARTED,
                f"job {job.id}",
                kind=job.kind,
                model=job.model,
                schedule=schedule.name,
            )
        else:
            note = reason
        ScheduleRepository(connection).dealt_with(
            schedule,
            next_at=next_moment(schedule.cron, now),
            job_id=None if job is None else job.id,
            note=note,
        )
        _log.info("schedule %s, due %s: %s", schedule.name, schedule.next_at.isoformat(), note)
        return job is not None

    def _reason_against(
        self, schedule: Schedule, now: datetime, connection: Connection
    ) -> str | None:
        late = now - schedule.next_at
        if schedule.missed is Missed.SKIP and late > timedelta(seconds=MISSED_AFTER_S):
            return f"skipped: missed by {late.total_seconds():.0f} s"
        jobs = JobRepository(connection)
        last = None if schedule.last_job_id is None else jobs.get(schedule.last_job_id)
        if last is not None and not last.state.finished:
            return f"skipped: {last.id} of the moment before has not ended"
        if jobs.count(JobState.QUEUED) >= self._most_queued:
            return "skipped: the queue is full"
        return None
