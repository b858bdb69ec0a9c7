"""The whole life of one job, top to bottom: probe, store, export.

Export is the last line of the store step: /metrics and the report routes read what it committed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress
from driftscope_service.jobs.executors.base import (
    Executor,
    ProgressWriter,
    StopReason,
    StopSignal,
    Work,
)
from driftscope_service.jobs.job import (
    Job,
    JobError,
    JobFolder,
    service_failed,
    service_stopped,
    timed_out,
)
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import Database

#: Delay before another try to record how a job ended, after a full disk or a long lock.
RECORD_RETRY_S = 1.0
_log = logging.getLogger("driftscope")
#: Gives the id of the job that a report belongs to, in the transaction that records it.
JobOf = Callable[[Connection], str]
#: Stores the report of a job, with the files that it names in a folder; gives its path.
Record = Callable[[Mapping[str, Any], Job, Path, JobOf], str]


@dataclass(frozen=True, slots=True)
class JobTools:
    """What every job needs."""

    data_dir: Path
    database: Database
    record: Record
    executor: Executor
    stopping: threading.Event  # the service is about to end


def run_job(job: Job, stop: StopSignal, tools: JobTools) -> None:
    """Take a claimed job to its end; whatever happens, the job table then says how it ended."""
    folder = JobFolder(tools.data_dir, job.id)
    try:
        report = _probe(job, folder, stop, tools)
        _store(job, report, folder, tools)
    except ProbeError as error:
        _end_early(job, error, stop, tools)
    except Exception as error:
        # The boundary of a job: an unforeseen failure must not take down the others.
        _log.exception("job %s failed", job.id)
        _fail(job, JobError.of(service_failed(error)), tools)
    folder.tidy()


def _probe(job: Job, folder: JobFolder, stop: StopSignal, tools: JobTools) -> dict[str, Any]:
    with tools.database.read() as connection:
        request = JobRepository(connection).request_of(job.id)

    def write(made: Progress) -> None:
        with tools.database.write() as connection:
            JobRepository(connection).set_progress(job.id, made)

    progress = ProgressWriter(write)
    try:
        return tools.executor.run(Work(job.id, 1, request, folder.path), stop, progress)
    finally:
        progress.finish()


def _store(job: Job, report: Mapping[str, Any], folder: JobFolder, tools: JobTools) -> None:
    def succeeded(connection: Connection) -> str:
        JobRepository(connection).succeed(job.id)
        return job.id

    path = tools.record(report, job, folder.path, succeeded)
    _log.info("job %s succeeded: %s", job.id, path)


def _end_early(job: Job, error: ProbeError, stop: StopSignal, tools: JobTools) -> None:
    """Our stop reason takes precedence over the probe's own error."""
    if stop.reason is StopReason.CANCELLED:
        _record(job, lambda jobs: jobs.cancelled(job.id), tools)
    elif stop.reason is StopReason.TIMED_OUT:
        _fail(job, JobError.of(timed_out(tools.executor.time_limit_s)), tools)
    elif stop.reason is StopReason.SERVICE_STOPPED:
        _fail(job, service_stopped(job), tools)
    else:
        _fail(job, JobError.of(error), tools)


def _fail(job: Job, error: JobError, tools: JobTools) -> None:
    _log.warning("job %s failed: %s", job.id, error.message)
    _record(job, lambda jobs: jobs.fail(job.id, error), tools)


def _record(job: Job, change: Callable[[JobRepository], None], tools: JobTools) -> None:
    """Retry until recorded or the service ends: the next start then finds the job unfinished."""
    while True:
        try:
            with tools.database.write() as connection:
                return change(JobRepository(connection))
        except OperationalError as error:
            _log.error("job %s: its end could not be recorded: %s", job.id, error)
        if tools.stopping.wait(RECORD_RETRY_S):
            return
