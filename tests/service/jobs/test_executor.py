"""The narrow moments of the executor: a wish that comes between claim and start."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_service.jobs.claims import ClaimRepository
from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.store import JobRepository
from driftscope_service.service import Service, open_service


@pytest.fixture
def idle(make_settings: Any) -> Any:
    """A service whose slots have not been started: the test is the slot."""
    with open_service(make_settings(), probe_module="quick_probe") as service:
        yield service


def claimed(service: Service) -> Any:
    request = {"kind": "paired", "request": {"prompts": ["sleep"]}, "model_path": None}
    with service.database.write() as connection:
        JobRepository(connection).add("paired", "tiny-random-llama", request)
        return ClaimRepository(connection).claim_next(service.executor.owner)


def end_of(service: Service, job_id: str) -> Any:
    with service.database.read() as connection:
        return JobRepository(connection).get(job_id)


def test_a_cancel_right_after_the_claim(idle: Service) -> None:
    claim = claimed(idle)
    with idle.database.write() as connection:
        JobRepository(connection).request_cancel(claim.job.id)
    idle.executor.cancel(claim.job.id)  # no probe of it runs yet
    idle.executor._run(claim)
    assert end_of(idle, claim.job.id).state is JobState.CANCELLED


def test_a_stop_right_after_the_claim(idle: Service) -> None:
    claim = claimed(idle)
    idle.executor.stop()
    idle.executor._run(claim)
    (attempt,) = end_of(idle, claim.job.id).attempts
    assert end_of(idle, claim.job.id).state is JobState.QUEUED
    assert attempt.reason is not None and attempt.reason.error == "ServiceStopped"


def test_cancelling_an_unknown_job_is_nothing(idle: Service) -> None:
    idle.executor.cancel("job_none")
