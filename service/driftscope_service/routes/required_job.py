"""The Job that a path names, or 404 before anything is answered."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from driftscope_service.errors import not_found
from driftscope_service.jobs.job import Job
from driftscope_service.routes.current_service import CurrentService
from driftscope_service.service import Service
from driftscope_service.store.job_repository import JobRepository


def find_job(service: Service, job_id: str) -> Job | None:
    with service.database.read() as connection:
        return JobRepository(connection).get(job_id)


def _required_job(job_id: str, service: CurrentService) -> Job:
    job = find_job(service, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


RequiredJob = Annotated[Job, Depends(_required_job)]
