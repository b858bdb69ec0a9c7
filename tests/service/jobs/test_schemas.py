"""A job as a body: every state, with links that lead to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from driftscope_probes.progress import Progress
from driftscope_service.jobs.api import JobBody
from driftscope_service.jobs.job import Job, JobError, JobState, service_stopped

NOW = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job(
    *(1, "job_1", "kernels", JobState.QUEUED, None, Progress("waiting", 0.0), None, None, None),
    *(NOW, None, None),
)


@pytest.mark.parametrize("state", JobState)
def test_a_body_says_what_the_job_is(state: JobState) -> None:
    error = JobError.of(service_stopped()) if state is JobState.FAILED else None
    report_id = "report_1" if state is JobState.SUCCEEDED else None
    asked_at = NOW if state is JobState.CANCELLED else None
    body = JobBody.of(
        replace(JOB, state=state, error=error, report_id=report_id, cancel_requested_at=asked_at)
    )
    assert JobBody.model_validate_json(body.model_dump_json()) == body
    assert (body.error is None) == (state is not JobState.FAILED)
    assert body.cancel_requested == (state is JobState.CANCELLED)
    links = body.links.model_dump()
    reports = links.pop("report"), links.pop("report_html")
    assert links.pop("self") == "/v1/jobs/job_1"
    assert links == {name: f"/v1/jobs/job_1/{name}" for name in ("cancel", "events", "logs")}
    found = ("/v1/reports/report_1", "/reports/report_1")
    assert reports == (found if state is JobState.SUCCEEDED else (None, None))
