"""The FastAPI application: middleware, error handlers, routes. In: a Service. Out: an ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from itertools import chain

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from driftscope_service import health, metrics_page, openapi, site
from driftscope_service.auth import audit_routes
from driftscope_service.auth.guard import KeyGuard, WrongKeys
from driftscope_service.experiments import reports_api
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.route import probe_routes, report_routes
from driftscope_service.experiments.schedules import schedule_routes
from driftscope_service.http import errors
from driftscope_service.http.body_pace import BodyPace, BodyPacing
from driftscope_service.http.errors import add_error_handlers
from driftscope_service.http.middleware import (
    BodyLimit,
    BodyLimits,
    HostGuard,
    RequestId,
    RequestMeter,
)
from driftscope_service.http.parameters import known_parameters
from driftscope_service.http.request_log import RequestLog
from driftscope_service.http.security_headers import SecurityHeaders
from driftscope_service.http.text_guard import AddressGuard, BodyGuard
from driftscope_service.jobs import api as jobs
from driftscope_service.lint import api as lint
from driftscope_service.runs.api import attempts, removal, runs, uploads
from driftscope_service.runs.ingest.upload_meter import UploadMeter
from driftscope_service.service import Service
from driftscope_service.settings import Settings

VERSION = version("driftscope")


def create_app(service: Service) -> FastAPI:
    app = FastAPI(
        title="driftscope",
        version=VERSION,
        description=openapi.DESCRIPTION,
        # Both pages load their scripts from another site.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.service = service
    add_error_handlers(app)
    # The last added sees a request first.
    app.add_middleware(BodyGuard, streamed=uploads.UPLOAD_PATH)
    app.add_middleware(BodyLimit, limits=_body_limits(service))
    app.add_middleware(BodyPacing, pace=_body_pace(service.settings))
    app.state.wrong_keys = WrongKeys()  # the login form counts them too
    app.add_middleware(
        KeyGuard,
        database=service.database,
        settings=service.settings,
        wrong_keys=app.state.wrong_keys,
    )
    app.add_middleware(AddressGuard)
    app.add_middleware(
        HostGuard,
        loopback_only=service.settings.listens_on_loopback,
        allowed_hosts=service.settings.allowed_hosts,
    )
    app.add_middleware(UploadMeter, counts=metrics_page.page_of(app).uploads)
    app.add_middleware(RequestMeter, counts=metrics_page.page_of(app).requests)
    app.add_middleware(RequestLog)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestId)
    if service.settings.trusted_proxies:
        app.add_middleware(
            ProxyHeadersMiddleware, trusted_hosts=list(service.settings.trusted_proxies)
        )
    app.router.routes.extend(_routes(tuple(service.kinds.values())))
    site.install(app, service)
    openapi.install(app)
    return app


@cache
def _routes(kinds: tuple[Kind, ...]) -> tuple[BaseRoute, ...]:
    """Of API and pages. FastAPI takes most of a second for them, so once per process."""
    made = APIRouter(
        generate_unique_id_function=_function_name, dependencies=[Depends(known_parameters)]
    )
    for router in (
        runs.router,
        attempts.router,
        runs.steps_router,
        uploads.router,
        removal.router,
        probe_routes(kinds),
        jobs.router,
        jobs.events_router,
        reports_api.router,
        report_routes(kinds),
        *(router for kind in kinds for router in kind.routers),
        schedule_routes(kinds),
        lint.router,
        audit_routes.router,
        metrics_page.router,
        health.router,
        errors.router,
        *site.routers(kinds),
    ):
        made.include_router(router)
    return tuple(made.routes)


def _body_limits(service: Service) -> BodyLimits:
    of_kinds = [(kind.body_limits or {}).items() for kind in service.kinds.values()]
    return BodyLimits(
        default=service.settings.max_body_bytes,
        of_paths={
            uploads.UPLOAD_PATH: service.settings.max_upload_bytes,
            runs.RUN_PATH: runs.MAX_RUN_BYTES,
            reports_api.REPORTS_PATH: reports_api.MAX_REPORT_BYTES,
            attempts.ATTEMPTS_PATH: attempts.MAX_ATTEMPT_BYTES,
            lint.LINT_PATH: lint.MAX_LINT_BYTES,
            **dict(chain.from_iterable(of_kinds)),
        },
    )


def _body_pace(settings: Settings) -> BodyPace:
    return BodyPace(
        idle_s=settings.upload_idle_timeout_seconds,
        total_s=settings.upload_total_timeout_seconds,
        least_bytes_per_s=settings.upload_min_bytes_per_second,
    )


def _function_name(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.executor.start()
    service.intake.start()
    service.scheduler.start()
    service.retention.start()
    yield
    # They wait for probes to end and for an analysis; the event loop must keep answering.
    await run_in_threadpool(service.retention.stop)
    await run_in_threadpool(service.scheduler.stop)
    await run_in_threadpool(service.executor.stop)
    await run_in_threadpool(service.intake.stop)
