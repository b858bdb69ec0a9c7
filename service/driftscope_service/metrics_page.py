"""/metrics: the page of a running service, from the families of every part.

Where several processes work on one database, each would repeat what stands in it. So there are two
halves: /metrics/process, which is asked of every process, and /metrics/shared, which is asked once,
of whichever answers. The whole is for a service that is alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, FastAPI, Header, Request, Response
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth import reach
from driftscope_service.experiments.kind import Kind
from driftscope_service.http.middleware import RequestCounts
from driftscope_service.jobs.metrics import job_families, retry_families
from driftscope_service.jobs.store import JobRepository, JobTimes
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family, one
from driftscope_service.metrics.metric_names import Metric
from driftscope_service.runs.drift import RunDrifts
from driftscope_service.runs.ingest.upload_meter import UploadCounts
from driftscope_service.runs.metrics import RunFamilies
from driftscope_service.runs.run_states import RunStateCache
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.webhook.sender import Result
from driftscope_service.service import Service
from driftscope_service.settings import Settings
from driftscope_service.store.instances import InstanceRepository
from driftscope_service.store.storage_use import Disk, disk_of, stored_bytes

#: Read from the installed files once: it takes longer than the rest of the page.
VERSION = version("driftscope")


def worker_family(alive: Mapping[str, bool]) -> Family:
    family = Family(metric_names.WORKER_UP)
    for worker, up in alive.items():
        family.add([worker], up)
    return family


def notice_family(results: Mapping[Result, int]) -> Family:
    family = Family(metric_names.WEBHOOK_NOTICES)
    for result, number in results.items():
        family.add([result], number)
    return family


def storage_family(stored: Mapping[str, int]) -> Family:
    storage = Family(metric_names.STORAGE)
    for kind, size in stored.items():
        storage.add([kind], size)
    return storage


def disk_families(disk: Disk | None, settings: Settings) -> Iterator[Family]:
    """disk: None if the data folder is missing."""
    yield one(metric_names.DISK_FREE, None if disk is None else disk.free)
    yield one(metric_names.DISK_SIZE, None if disk is None else disk.size)
    yield one(metric_names.DISK_RESERVED, settings.min_free_disk_bytes)


def build_family() -> Family:
    family = Family(metric_names.BUILD_INFO)
    family.add([VERSION], 1.0)
    return family


def every_metric(kinds: Mapping[str, Kind]) -> tuple[Metric, ...]:
    """Everything that is exported, in the order of the page."""
    return (*(metric for kind in kinds.values() for metric in kind.metrics), *metric_names.METRICS)


_END = "# EOF\n"
Part = Literal["process", "shared"]


class MetricsPage:
    """One per service: it keeps what did not change since the last scrape."""

    def __init__(self, service: Service) -> None:
        """Touches neither disk nor database, and starts nothing."""
        self.uploads = UploadCounts()
        self.requests = RequestCounts()
        self._service = service
        self._run_states = RunStateCache()
        self._run_families = RunFamilies()
        self._run_drifts = RunDrifts(service.database, service.run_drift)
        self._active: Sequence[Run] = ()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def render(
        self, accept: str, parts: Sequence[Part] = ("process", "shared")
    ) -> tuple[bytes, str]:
        """The page and its content type, in the format that the Accept header prefers."""
        encode, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        families: list[Family] = []
        text = ""
        if "shared" in parts:
            families += self._shared()
        if "process" in parts:
            text = encode(self._process).decode().removesuffix(_END)
            families += self._of_this_process()
        text += "".join(family.text(openmetrics=openmetrics) for family in families)
        page = f"{text}{_END if openmetrics else ''}".encode()
        if "shared" in parts:
            # Only now: it would slow down the page.
            self._run_drifts.refresh(self._active)
        return page, content_type

    def stop(self) -> None:
        """May be called twice."""
        self._run_drifts.stop()

    def _shared(self) -> Iterator[Family]:
        """What the database tells, whichever process is asked."""
        settings = self._service.settings
        with self._service.database.read() as connection:
            for kind in self._service.kinds.values():
                yield from kind.families(connection, frozenset(settings.model_names))
            yield from self._of_runs(connection)
            yield from job_families(
                JobRepository(connection).counts(),
                JobTimes(connection).oldest_queued_at(),
                JobTimes(connection).last_finished(),
                settings,
            )
            yield storage_family(stored_bytes(connection))
            yield one(metric_names.TOKEN_BUDGET, settings.token_budget_bytes)
            yield one(metric_names.INSTANCES, len(InstanceRepository(connection).alive()))

    def _of_this_process(self) -> Iterator[Family]:
        """What no other process knows; it reads no database, which may be away."""
        settings = self._service.settings
        executor, intake = self._service.executor, self._service.intake
        yield worker_family(
            {
                "executor": executor.alive,
                "token_keeper": intake.keeper.alive,
                "scheduler": self._service.scheduler.alive,
                "heartbeat": self._service.presence.alive,
                # Where it is off, nothing that should live is missing.
                **({"webhook": intake.webhook.alive} if intake.webhook.on else {}),
            }
        )
        yield from retry_families(executor.counts)
        yield from self.requests.families()
        yield from self.uploads.families(settings.max_concurrent_uploads)
        yield notice_family(intake.webhook.counts.results)
        yield from disk_families(self._disk(), settings)
        yield build_family()

    def _of_runs(self, connection: Connection) -> Iterator[Family]:
        settings = self._service.settings
        idle = timedelta(seconds=settings.metrics_idle_seconds)
        states = self._run_states.read(
            connection, since=datetime.now(UTC) - idle, cap=settings.metrics_max_runs
        )
        runs = [state.run for state in states.states]
        self._active = runs
        # Only now: what is kept from one scrape to the next is of every run.
        seen = reach.current()
        states = replace(states, states=[one for one in states.states if seen.has(one.run.name)])
        yield from self._run_families.families(states, self._run_drifts.known(runs))

    def _disk(self) -> Disk | None:
        try:
            return disk_of(self._service.settings.data_dir)
        except OSError:
            # /readyz tells what is wrong; the page has the rest.
            return None


def page_of(app: FastAPI) -> MetricsPage:
    """This application's page; created on first use, which is before the first request."""
    if not hasattr(app.state, "metrics_page"):
        app.state.metrics_page = MetricsPage(app.state.service)
    return cast(MetricsPage, app.state.metrics_page)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    page = page_of(app)
    yield
    # It may wait for a drift that is being computed.
    await run_in_threadpool(page.stop)


router = APIRouter(tags=["operations"], lifespan=_lifespan)


_TEXT: Any = {"response_class": Response, "responses": {200: {"content": {"text/plain": {}}}}}
Accept = Annotated[str, Header(include_in_schema=False)]


@router.get("/metrics", **_TEXT)
def get_metrics(request: Request, accept: Accept = "") -> Response:
    """Numbers of the last step of every active run, of the last paired probe of every model, the
    last verdict on every kernel, and the state of the service."""
    return _page(request, accept, ("process", "shared"))


@router.get("/metrics/process", **_TEXT)
def get_metrics_of_process(request: Request, accept: Accept = "") -> Response:
    """Of /metrics what one process of the service tells of itself: requests, pushes, workers, its
    disk. For every one of several replicas."""
    return _page(request, accept, ("process",))


@router.get("/metrics/shared", **_TEXT)
def get_shared_metrics(request: Request, accept: Accept = "") -> Response:
    """Of /metrics what stands in the database: runs, verdicts, jobs, storage. Every replica says
    the same, so that one is asked, whichever answers."""
    return _page(request, accept, ("shared",))


def _page(request: Request, accept: str, parts: Sequence[Part]) -> Response:
    body, content_type = page_of(request.app).render(accept, parts)
    return Response(body, headers={"Content-Type": content_type})
