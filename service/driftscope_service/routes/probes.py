"""POST /v1/probes/paired: accept a probe and answer with its job."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError
from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.paired_job import KIND, probe_request
from driftscope_service.problem_responses import problems
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.schemas import JobBody, PairedProbeRequest
from driftscope_service.service import Service
from driftscope_service.store.job_repository import JobRepository

#: A job takes minutes: a client that asks every other second is soon enough.
POLL_S = 2
#: A slot becomes free no sooner than a probe ends.
QUEUE_RETRY_S = 60

router = APIRouter(tags=["probes"])
_ACCEPTED_HEADERS = {
    "Location": {"description": "path of the job", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "seconds until it is worth asking",
        "schema": {"type": "integer"},
    },
}


@router.post(
    "/v1/probes/paired",
    status_code=202,
    responses={
        202: {"headers": _ACCEPTED_HEADERS},
        **problems(
            problem_kinds.INVALID_REQUEST,
            problem_kinds.CONTENT_TOO_LARGE,
            problem_kinds.QUEUE_FULL,
        ),
    },
)
def start_paired_probe(
    request: PairedProbeRequest, response: Response, service: CurrentService
) -> JobBody:
    """Queue a paired probe: rollouts of the engine in every dtype, compared with a training-mode
    forward over the same tokens in every mode. Follow the job at `Location`."""
    job = _queue(request.model, probe_request(request, service.settings), service)
    service.executor.announce()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(POLL_S)
    return JobBody.of(job)


def _queue(model: str, request: dict[str, Any], service: Service) -> Job:
    limit = service.settings.max_queued_jobs
    with service.database.write() as connection:
        jobs = JobRepository(connection)
        if jobs.count(JobState.QUEUED) >= limit:
            raise ServiceError(
                problem_kinds.QUEUE_FULL,
                f"{limit} jobs are waiting already",
                headers={"Retry-After": str(QUEUE_RETRY_S)},
            )
        return jobs.add(KIND, model, request)
