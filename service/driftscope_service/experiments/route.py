"""POST /v1/probes/{paired|kernels|determinism|nightly}: accept a probe, answer with its job."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from driftscope_service.experiments.determinism import job as determinism_job
from driftscope_service.experiments.determinism.job import DeterminismProbeRequest
from driftscope_service.experiments.kernels import job as kernels_job
from driftscope_service.experiments.kernels.job import KernelsProbeRequest
from driftscope_service.experiments.nightly import job as nightly_job
from driftscope_service.experiments.paired import job as paired_job
from driftscope_service.experiments.paired.job import PairedProbeRequest
from driftscope_service.http import problem_kinds
from driftscope_service.http.current_service import CurrentService
from driftscope_service.http.errors import ServiceError
from driftscope_service.http.problems import problems
from driftscope_service.jobs.job import Job, JobState
from driftscope_service.jobs.schemas import JobBody
from driftscope_service.jobs.store import JobRepository
from driftscope_service.service import Service

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


_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"headers": _ACCEPTED_HEADERS},
    **problems(
        problem_kinds.INVALID_REQUEST,
        problem_kinds.CONTENT_TOO_LARGE,
        problem_kinds.QUEUE_FULL,
    ),
}


@router.post("/v1/probes/paired", status_code=202, responses=_ACCEPTED)
def start_paired_probe(
    request: PairedProbeRequest, response: Response, service: CurrentService
) -> JobBody:
    """Queue a paired probe: rollouts of the engine in every dtype, compared with a training-mode
    forward over the same tokens in every mode. Follow the job at `Location`."""
    fields = paired_job.probe_request(request, service.settings)
    return _accept(paired_job.KIND, request.model, fields, response, service)


@router.post("/v1/probes/kernels", status_code=202, responses=_ACCEPTED)
def start_kernels_probe(
    request: KernelsProbeRequest, response: Response, service: CurrentService
) -> JobBody:
    """Queue a kernel check: a verdict for every kernel, dtype and number of threads, with the
    smallest counterexample where it is refuted. Follow the job at `Location`."""
    fields = kernels_job.probe_request(request, service.settings)
    return _accept(kernels_job.KIND, None, fields, response, service)


@router.post("/v1/probes/determinism", status_code=202, responses=_ACCEPTED)
def start_determinism_probe(
    request: DeterminismProbeRequest, response: Response, service: CurrentService
) -> JobBody:
    """Queue a determinism probe: along which axes (batch size, prefix cache, …) the engine gives
    other bits, from which value on. Follow the job at `Location`."""
    fields = determinism_job.probe_request(request, service.settings)
    return _accept(determinism_job.KIND, request.model, fields, response, service)


@router.post("/v1/probes/nightly", status_code=202, responses=_ACCEPTED)
def start_nightly(response: Response, service: CurrentService) -> JobBody:
    """Queue a night now, with the operator's configuration. Follow the job at `Location`."""
    fields = nightly_job.probe_request(service.settings)
    return _accept(nightly_job.KIND, None, fields, response, service)


def _accept(
    kind: str, model: str | None, request: dict[str, Any], response: Response, service: Service
) -> JobBody:
    job = _queue(kind, model, request, service)
    service.executor.announce()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(POLL_S)
    return JobBody.of(job)


def _queue(kind: str, model: str | None, request: dict[str, Any], service: Service) -> Job:
    limit = service.settings.max_queued_jobs
    with service.database.write() as connection:
        jobs = JobRepository(connection)
        if jobs.count(JobState.QUEUED) >= limit:
            raise ServiceError(
                problem_kinds.QUEUE_FULL,
                f"{limit} jobs are waiting already",
                headers={"Retry-After": str(QUEUE_RETRY_S)},
            )
        return jobs.add(kind, model, request)
