"""The parts of a running service, put together: settings, database, report files, executor.

`open_service` prepares the data folder and holds it; a second service on it is refused. Several
services may work on one PostgreSQL database, each with a data folder of its own.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.access import check_keys_exist
from driftscope_service.experiments.kind import Kind, Report
from driftscope_service.experiments.record import store_report
from driftscope_service.experiments.registry import EXPERIMENTS, load_kinds
from driftscope_service.experiments.retention import Retention, kept_of
from driftscope_service.experiments.store import ReportFiles, ReportRepository
from driftscope_service.jobs.claims import Owner
from driftscope_service.jobs.executor import JobExecutor
from driftscope_service.jobs.executors.base import Executor
from driftscope_service.jobs.executors.local import (
    DEFAULT_MODULE,
    Devices,
    LocalExecutor,
    kill_orphans,
)
from driftscope_service.jobs.executors.ray.cluster import RayCluster, build_cluster
from driftscope_service.jobs.executors.ray.executor import RayExecutor
from driftscope_service.jobs.executors.ray.options import ClusterOptions
from driftscope_service.jobs.job import Job
from driftscope_service.jobs.run_job import Again, JobOf, JobTools
from driftscope_service.runs.brought import step_brought
from driftscope_service.runs.drift import RunDrift
from driftscope_service.runs.ingest.analysis_pool import AnalysisPool
from driftscope_service.runs.ingest.intake import Intake, build_intake
from driftscope_service.runs.ingest.large_steps.base import LargeSteps
from driftscope_service.runs.ingest.large_steps.in_pool import LargeStepsInPool
from driftscope_service.runs.ingest.large_steps.on_ray import LargeStepsOnRay
from driftscope_service.schedule.scheduler import Scheduler
from driftscope_service.settings import Settings
from driftscope_service.store import disk_reserve, migrate
from driftscope_service.store.database import Database
from driftscope_service.store.identity import claim_storage
from driftscope_service.store.instances import Presence
from driftscope_service.store.storage.base import Storage
from driftscope_service.store.storage.guarded import GuardedStorage
from driftscope_service.store.storage.opening import open_storage
from driftscope_service.store.tables import HOST_LENGTH

#: Prompts and answers are the users' own: no other account of the machine reads them.
DATA_DIR_MODE = 0o700
LOCK_NAME = "service.lock"


class DataDirError(ProbeError):
    """The data folder cannot be used."""


class DataDirInUse(DataDirError):
    """Another service, or a command that prepares the folder, holds it."""


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    database: Database
    kinds: Mapping[str, Kind]
    storage: Storage
    report_files: ReportFiles
    executor: JobExecutor
    intake: Intake
    run_drift: RunDrift
    scheduler: Scheduler
    retention: Retention
    presence: Presence

    def step_brought(self, run: str, step: int) -> Mapping[str, Any] | None:
        """Of a pushed step, what a diagnosis takes from it; None where there is none."""
        return step_brought(self, run, step)

    def reports_of_step(self, run: str, step: int) -> list[tuple[str, str]]:
        """Page and sentence of every report that was made of a pushed step, newest first."""
        with self.database.read() as connection:
            found = ReportRepository(connection).of_step(run, step)
        return [
            (self.kinds[one.kind].report_page(one.id), self.kinds[one.kind].sentence(one.summary))
            for one in found
            if one.kind in self.kinds
        ]


def build_service(
    settings: Settings,
    *,
    probe_module: str = DEFAULT_MODULE,
    experiments: Sequence[str] = EXPERIMENTS,
) -> Service:
    """Touches neither disk nor database, and starts nothing."""
    database = Database(settings.database)
    storage = GuardedStorage(open_storage(settings.storage_url, settings.data_dir), database)
    report_files = ReportFiles(storage)
    presence = Presence(database)
    kinds = load_kinds(experiments)
    cluster = _cluster(settings)
    carries_out = _executor(settings, probe_module, kinds, cluster)

    def record(report: Report, job: Job, workdir: Path, job_of: JobOf, again: Again) -> str:
        return store_report(
            report,
            kind=kinds[job.kind],
            model=job.model,
            workdir=workdir,
            job_of=job_of,
            again=again,
            database=database,
            files=report_files,
        ).path

    tools = JobTools(
        settings.data_dir,
        database,
        record,
        carries_out,
        threading.Event(),
        kill_orphans,
        settings.job_total_time_limit_seconds,
    )
    owner = Owner(presence.id, socket.gethostname()[:HOST_LENGTH], carries_out.name)
    executor = JobExecutor(tools, owner, settings.max_concurrent_probes)
    pool = AnalysisPool(settings.analysis_processes)
    intake = build_intake(
        *(settings, database, storage, pool, _large_steps(settings, pool, cluster)),
        instance=presence.id,
    )
    scheduler = Scheduler(
        database, settings.max_queued_jobs, executor.announce, instance=presence.id
    )
    return Service(
        settings=settings,
        database=database,
        kinds=kinds,
        storage=storage,
        report_files=report_files,
        executor=executor,
        intake=intake,
        run_drift=RunDrift(),
        scheduler=scheduler,
        retention=Retention(
            database, report_files, settings.data_dir, presence.id, kept_of(settings)
        ),
        presence=presence,
    )


def _cluster(settings: Settings) -> RayCluster | None:
    if settings.executor == "local":
        return None
    options = ClusterOptions(
        settings.ray_address,
        settings.ray_cpus_per_job,
        settings.ray_gpus_per_job,
        settings.ray_memory_bytes_per_job,
        settings.ray_accelerator_type,
        settings.ray_resources,
    )
    return build_cluster(options, settings.ray_token_file)


def _executor(
    settings: Settings, probe_module: str, kinds: Mapping[str, Kind], cluster: RayCluster | None
) -> Executor:
    limit_s = settings.job_time_limit_seconds
    if cluster is not None:
        return RayExecutor(probe_module, limit_s, kinds, cluster)
    return LocalExecutor(
        probe_module,
        settings.probe_python,
        limit_s,
        kinds,
        settings.max_probe_memory_gib,
        Devices(settings.devices),
    )


def _large_steps(settings: Settings, pool: AnalysisPool, cluster: RayCluster | None) -> LargeSteps:
    if cluster is None:
        return LargeStepsInPool(pool)
    return LargeStepsOnRay(cluster, settings.analysis_processes, settings.job_time_limit_seconds)


@contextmanager
def open_service(
    settings: Settings,
    *,
    probe_module: str = DEFAULT_MODULE,
    experiments: Sequence[str] = EXPERIMENTS,
) -> Iterator[Service]:
    """Prepare and hold the data folder, yield the service, leave no probe."""
    disk_reserve.release_if_full(settings.data_dir)
    with held_data_dir(settings.data_dir):
        migrate.upgrade(settings.database)
        service = build_service(settings, probe_module=probe_module, experiments=experiments)
        try:
            yield from _running(service)
        finally:
            service.database.dispose()


def _running(service: Service) -> Iterator[Service]:
    try:
        check_keys_exist(service.settings, service.database)
        claim_storage(service.database, service.storage)
        service.presence.join()
        service.intake.sweep()
        service.executor.recover()
        disk_reserve.take(service.settings.data_dir)
        yield service
    finally:
        service.retention.stop()
        service.scheduler.stop()
        service.executor.stop()
        service.intake.stop()
        service.presence.leave()


@contextmanager
def held_data_dir(data_dir: Path) -> Iterator[None]:
    try:
        data_dir.mkdir(mode=DATA_DIR_MODE, parents=True, exist_ok=True)
        lock = FileLock(data_dir / LOCK_NAME, timeout=0)
        lock.acquire()
    except Timeout:
        raise DataDirInUse(
            f"another driftscope service uses {data_dir}.",
            remedy="stop it, or give another --data-dir.",
        ) from None
    except OSError as error:
        raise DataDirError(
            f"the data folder {data_dir} cannot be used: {error.strerror or error}.",
            remedy="give a --data-dir on a local disk that this user may write to.",
        ) from error
    try:
        yield
    finally:
        lock.release()


#: Another command may be making the same folder at this moment; a migration takes less.
PREPARED_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.1


@contextmanager
def shared_database(settings: Settings) -> Iterator[Database]:
    """The database of a data folder, for short writes beside a service that may run on it.

    Raises DataDirError or MigrationError where its schema is not that of this version and cannot
    be brought there now.
    """
    deadline = time.monotonic() + PREPARED_WITHIN_S
    while not _is_current(settings):
        try:
            with held_data_dir(settings.data_dir):
                migrate.upgrade(settings.database)
        except DataDirInUse:
            if time.monotonic() > deadline:
                raise _other_schema(settings) from None
            time.sleep(_LOOK_EVERY_S)
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.dispose()


def _is_current(settings: Settings) -> bool:
    address = settings.database
    if isinstance(address, Path) and not address.is_file():
        return False
    return migrate.is_current(address)


def _other_schema(settings: Settings) -> DataDirError:
    return DataDirError(
        f"the service that runs on {settings.data_dir} has another schema of the database than "
        f"this version, which needs revision {migrate.newest_revision()}.",
        remedy="use one version of driftscope for both: stop the service and start it again with "
        "this one, or hand the report to it with --url.",
    )
