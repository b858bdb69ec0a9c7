"""Families of the service itself: jobs, workers, storage, build.

In: what the database and the disk tell. Out: Family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version

from driftscope_service.export import metric_names
from driftscope_service.export.exposition import Family
from driftscope_service.export.metric_names import Metric
from driftscope_service.jobs.job import JobState
from driftscope_service.settings import Settings
from driftscope_service.store.job_times import LastJob
from driftscope_service.store.storage_use import Disk

#: Read from the installed files once: it takes longer than the rest of the page.
VERSION = version("driftscope")


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


def worker_family(alive: Mapping[str, bool]) -> Family:
    family = Family(metric_names.WORKER_UP)
    for worker, up in alive.items():
        family.add([worker], up)
    return family


def storage_families(
    stored: Mapping[str, int], disk: Disk | None, settings: Settings
) -> Iterator[Family]:
    """disk: None where the data folder is gone."""
    storage = Family(metric_names.STORAGE)
    for kind, size in stored.items():
        storage.add([kind], size)
    yield storage
    yield one(metric_names.TOKEN_BUDGET, settings.token_budget_bytes)
    yield one(metric_names.DISK_FREE, None if disk is None else disk.free)
    yield one(metric_names.DISK_SIZE, None if disk is None else disk.size)
    yield one(metric_names.DISK_RESERVED, settings.min_free_disk_bytes)


def build_family() -> Family:
    family = Family(metric_names.BUILD_INFO)
    family.add([VERSION], 1.0)
    return family


def one(metric: Metric, value: float | None) -> Family:
    """A metric without labels; no sample where there is no value."""
    family = Family(metric)
    if value is not None:
        family.add([], value)
    return family
