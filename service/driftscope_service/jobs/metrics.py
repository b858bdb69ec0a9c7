"""Families of the service itself: jobs, workers, storage, build.

In: what the database and the disk tell. Out: Family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.run_job import JobCounts
from driftscope_service.jobs.store import LastJob
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family, one
from driftscope_service.settings import Settings


def job_families(
    counts: Mapping[JobState, int],
    oldest_queued_at: datetime | None,
    finished: Iterable[LastJob],
    settings: Settings,
) -> Iterator[Family]:
    by_state = Family(metric_names.JOBS)
    for state, number in counts.items():
        by_state.add([state], number)
    oldest = Family(metric_names.JOBS_OLDEST_QUEUED)
    if oldest_queued_at is not None:
        oldest.add([], oldest_queued_at.timestamp())
    durations = Family(metric_names.JOB_LAST_DURATION)
    for job in finished:
        durations.add([job.kind, job.state], job.seconds)
    yield by_state
    yield oldest
    yield one(metric_names.JOBS_QUEUED_LIMIT, settings.max_queued_jobs)
    yield one(metric_names.JOB_TIME_LIMIT, settings.job_time_limit_seconds)
    yield durations


def retry_families(ended: JobCounts) -> Iterator[Family]:
    """Of this process since its start."""
    yield one(metric_names.JOB_LEASE_EXPIRATIONS, ended.expired)
    retries = Family(metric_names.JOB_RETRIES)
    for reason, number in ended.retries.items():
        retries.add([reason], number)
    yield retries
