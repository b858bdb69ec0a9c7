"""The whole life of one attempt at a job, top to bottom: probe, store, export.

Export is the last line of the store step: /metrics and the report routes read what it committed.
Every write names the attempt and its owner. Where the job is no longer theirs, the write is refused
and whatever the attempt made is discarded.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress
from driftscope_service.jobs.claims import Claim, ClaimRepository, LeaseLost
from driftscope_service.jobs.executors.base import (
    Executor,
    ProgressWriter,
    StopReason,
    StopSignal,
    Work,
)
from driftscope_service.jobs.job import (
    AttemptFolder,
    AttemptOutcome,
    Job,
    JobError,
    JobFolder,
    JobState,
    database_unavailable,
    out_of_time,
    service_failed,
    service_stopped,
    timed_out,
)
from driftscope_service.jobs.retries import RETRIES
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import Database, is_full

#: Delay before another try to record how a job ended, after a full disk or a long lock.
RECORD_RETRY_S = 1.0
Changed = TypeVar("Changed")
_log = logging.getLogger("driftscope")
#: Gives the id of the job that a report belongs to, in the transaction that records it.
JobOf = Callable[[Connection], str]
#: After a database that did not record it: waits, and says whether to try once more.
Again = Callable[[OperationalError], bool]
#: Stores the report of a job, with the files that it names in a folder; gives its path.
Record = Callable[[Mapping[str, Any], Job, Path, JobOf, Again], str]
#: Ends what is left of attempts on this host; identifiers of what it ended.
EndOrphans = Callable[[Sequence[tuple[str, int]]], list[int]]


class JobCounts:
    """Since the start of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.expired = 0  # leases
        self.retries = dict.fromkeys(RETRIES, 0)  # by the name of the error before

    def ended(self, error: JobError, outcome: AttemptOutcome, *, retried: bool) -> None:
        """An attempt without a report."""
        with self._lock:
            self.expired += outcome is AttemptOutcome.LOST
            if retried:
                self.retries[error.error] += 1


@dataclass(frozen=True, slots=True)
class JobTools:
    """What every job needs."""

    data_dir: Path
    database: Database
    record: Record
    executor: Executor
    stopping: threading.Event  # the service is about to end
    end_orphans: EndOrphans
    total_time_limit_s: float  # of all attempts at a job together
    counts: JobCounts = field(default_factory=JobCounts)


def run_job(claim: Claim, stop: StopSignal, tools: JobTools) -> None:
    """Take a claimed job to the end of its attempt; whatever happens, the job table then says how
    it ended, unless the job is no longer the claim's."""
    folder = JobFolder(tools.data_dir, claim.job.id).attempt(claim.fence.attempt)
    try:
        report = _probe(claim, folder, stop, tools)
        _store(claim, report, folder, tools)
    except LeaseLost as lost:
        _log.warning("%s: its report is discarded", lost)
    except ProbeError as error:
        _end_early(claim, error, stop, folder, tools)
    except OperationalError as error:
        _log.exception("job %s failed", claim.job.id)
        told = service_failed(error) if is_full(error) else database_unavailable(error)
        _end(claim, JobError.of(told), AttemptOutcome.FAILED, folder, tools)
    except Exception as error:
        # The boundary of a job: an unforeseen failure must not take down the others.
        _log.exception("job %s failed", claim.job.id)
        _end(claim, JobError.of(service_failed(error)), AttemptOutcome.FAILED, folder, tools)
    folder.tidy()


def _probe(
    claim: Claim, folder: AttemptFolder, stop: StopSignal, tools: JobTools
) -> dict[str, Any]:
    with tools.database.read() as connection:
        request = JobRepository(connection).request_of(claim.job.id)

    def write(made: Progress) -> None:
        try:
            with tools.database.write() as connection:
                ClaimRepository(connection).set_progress(claim.fence, made)
        except LeaseLost:
            stop.request(StopReason.LEASE_LOST)

    progress = ProgressWriter(write)
    work = Work(claim.job.id, claim.fence.attempt, request, folder.path)
    try:
        return tools.executor.run(work, stop, progress)
    finally:
        progress.finish()


def _store(claim: Claim, report: Mapping[str, Any], folder: AttemptFolder, tools: JobTools) -> None:
    def succeeded(connection: Connection) -> str:
        ClaimRepository(connection).succeed(claim.fence)
        return claim.job.id

    path = tools.record(report, claim.job, folder.path, succeeded, _again(claim, tools))
    _log.info("job %s succeeded: %s", claim.job.id, path)


def _again(claim: Claim, tools: JobTools) -> Again:
    """The work of an hour is done, and a lock passes. If a commit of unknown outcome was one after
    all, the next try finds the claim at its end: LeaseLost."""

    def again(error: OperationalError) -> bool:
        if is_full(error):
            return False
        _log.error("job %s: its report could not be recorded: %s", claim.job.id, error)
        return not tools.stopping.wait(RECORD_RETRY_S)

    return again


def _end_early(
    claim: Claim, error: ProbeError, stop: StopSignal, folder: AttemptFolder, tools: JobTools
) -> None:
    """Our stop reason takes precedence over the probe's own error."""
    outcome = AttemptOutcome.FAILED
    if stop.reason is StopReason.LEASE_LOST:
        _log.warning("%s was stopped: the job is no longer ours", claim.fence)
        return
    if stop.reason is StopReason.CANCELLED:
        tail = folder.log_tail()
        _record(claim, lambda claims: claims.cancelled(claim.fence, tail), tools)
        return
    if stop.reason is StopReason.TIMED_OUT:
        error = timed_out(tools.executor.time_limit_s)
    elif stop.reason is StopReason.OUT_OF_TIME:
        error = out_of_time(tools.total_time_limit_s)
    elif stop.reason is StopReason.SERVICE_STOPPED:
        error, outcome = service_stopped(), AttemptOutcome.STOPPED
    _end(claim, JobError.of(error), outcome, folder, tools)


def _end(
    claim: Claim, error: JobError, outcome: AttemptOutcome, folder: AttemptFolder, tools: JobTools
) -> None:
    tail = folder.log_tail()

    job = _record(
        claim,
        lambda claims: claims.end_without_report(
            claim.fence,
            error,
            outcome,
            log_tail=tail,
            total_time_limit_s=tools.total_time_limit_s,
        ),
        tools,
    )
    if job is not None:
        retried = job.state is JobState.QUEUED
        word = "will be tried again" if retried else job.state
        _log.warning("job %s %s: %s", claim.job.id, word, error.message)
        tools.counts.ended(error, outcome, retried=retried)


def _record(
    claim: Claim, change: Callable[[ClaimRepository], Changed], tools: JobTools
) -> Changed | None:
    """Retry until recorded or the service ends: the next start then finds the job unfinished."""
    while True:
        try:
            with tools.database.write() as connection:
                return change(ClaimRepository(connection))
        except OperationalError as error:
            _log.error("job %s: its end could not be recorded: %s", claim.job.id, error)
        except LeaseLost as lost:
            _log.warning("%s: how it ended is not recorded", lost)
            return None
        if tools.stopping.wait(RECORD_RETRY_S):
            return None
