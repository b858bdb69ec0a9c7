"""The FastAPI application: middleware, error handlers, routes. In: a Service. Out: an ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from driftscope_service import openapi
from driftscope_service.errors import add_error_handlers
from driftscope_service.middleware.body_limit import BodyLimit
from driftscope_service.middleware.host_guard import HostGuard
from driftscope_service.middleware.request_id import RequestId
from driftscope_service.routes import health, index, jobs, metrics, probes, problems, reports
from driftscope_service.service import Service

VERSION = version("driftscope")


def create_app(service: Service) -> FastAPI:
    app = FastAPI(
        title="driftscope",
        version=VERSION,
        description=openapi.DESCRIPTION,
        # Both pages load their scripts from another site.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_function_name,
        lifespan=_lifespan,
    )
    app.state.service = service
    add_error_handlers(app)
    # The last added sees a request first.
    app.add_middleware(BodyLimit, max_bytes=service.settings.max_body_bytes)
    app.add_middleware(HostGuard)
    app.add_middleware(RequestId)
    for resource in (index, probes, jobs, reports, metrics, health, problems):
        app.include_router(resource.router)
    openapi.install(app)
    return app


def _function_name(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.executor.start()
    yield
    # It waits for probes to die; the event loop must still answer meanwhile.
    await run_in_threadpool(service.executor.stop)
