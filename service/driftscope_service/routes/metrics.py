"""GET /metrics: the page that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, cast

from fastapi import APIRouter, FastAPI, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from driftscope_service.export.prometheus import MetricsPage


def page_of(app: FastAPI) -> MetricsPage:
    """The one of this application; made on first use, which is before the first request."""
    if not hasattr(app.state, "metrics_page"):
        app.state.metrics_page = MetricsPage(app.state.service)
    return cast(MetricsPage, app.state.metrics_page)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    page = page_of(app)
    yield
    # It may wait for a drift that is being worked out.
    await run_in_threadpool(page.stop)


router = APIRouter(tags=["operations"], lifespan=_lifespan)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(
    request: Request, accept: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """Numbers of the last step of every active run, of the last paired probe of every model, the
    last verdict on every kernel, and the state of the service."""
    body, content_type = page_of(request.app).render(accept)
    return Response(body, headers={"Content-Type": content_type})
