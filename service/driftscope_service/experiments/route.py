"""POST /v1/probes/{kind}: accept a probe, answer with its job."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from driftscope_service.experiments.kind import CurrentService, ExperimentsService, Kind
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError
from driftscope_service.http.problems import problems
from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.schemas import JobBody
from driftscope_service.jobs.store import JobRepository

#: A job takes minutes: polling every 2 s is enough.
POLL_S = 2
#: A slot becomes free only when a probe ends.
QUEUE_RETRY_S = 60

_ACCEPTED_HEADERS = {
    "Location": {"description": "path of the job", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "seconds until it is worth asking",
        "schema": {"type": "integer"},
    },
}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"headers": _ACCEPTED_HEADERS},
    **problems(
        problem_kinds.INVALID_REQUEST,
        problem_kinds.CONTENT_TOO_LARGE,
        problem_kinds.QUEUE_FULL,
    ),
}


def paragraph(text: str) -> str:
    """Lines as the docstring of a route has them: the OpenAPI document shows both alike."""
    quotes = '"""'
    return textwrap.fill(text, 96, initial_indent=quotes, break_on_hyphens=False)[len(quotes) :]


def probe_routes(kinds: Iterable[Kind]) -> APIRouter:
    router = APIRouter(tags=["probes"])
    for kind in kinds:
        router.add_api_route(
            f"/v1/probes/{kind.name}",
            _endpoint(kind),
            methods=["POST"],
            status_code=202,
            responses=_ACCEPTED,
            name=kind.operation,
            description=paragraph(f"{kind.description} Follow the job at `Location`."),
        )
    return router


def _endpoint(kind: Kind) -> Callable[..., JobBody]:
    def start(response: Response, service: CurrentService) -> JobBody:
        return _start(kind, None, response, service)

    def start_with(request: Any, response: Response, service: CurrentService) -> JobBody:
        return _start(kind, request, response, service)

    if kind.request is None:
        return start
    # FastAPI reads the body's model here.
    start_with.__annotations__["request"] = kind.request
    return start_with


def _start(
    kind: Kind, request: BaseModel | None, response: Response, service: ExperimentsService
) -> JobBody:
    fields, limit = kind.job(request, service.settings), service.settings.max_queued_jobs
    with service.database.write() as connection:
        jobs = JobRepository(connection)
        if jobs.count(JobState.QUEUED) >= limit:
            raise ServiceError(
                problem_kinds.QUEUE_FULL,
                f"{limit} jobs are waiting already",
                headers={"Retry-After": str(QUEUE_RETRY_S)},
            )
        job = jobs.add(kind.name, getattr(request, "model", None), fields)
    service.executor.announce()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(POLL_S)
    return JobBody.of(job)
