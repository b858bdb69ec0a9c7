"""A job that was tried more than once, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftscope_probes.progress import Progress
from driftscope_service.jobs.claims import Claim, Fence
from driftscope_service.jobs.executors.base import StopReason
from driftscope_service.jobs.job import AttemptOutcome, Job, JobAttempt, JobError, JobState
from driftscope_service.jobs.job_words import attempt_rows
from driftscope_service.jobs.running import RunningAttempt, RunningAttempts

NOW = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job(
    *(1, "job_1", "kernels", JobState.RUNNING, None, Progress("waiting", 0.0), None, None, None),
    *(NOW, NOW, None),
)
LOST = JobAttempt(
    *(1, "instance_a", "node-1", "ray", NOW, NOW + timedelta(seconds=61)),
    *(AttemptOutcome.LOST, JobError("OwnerLost", "nothing was heard.", "see.")),
)


def test_a_row_for_each_attempt() -> None:
    second = replace(LOST, attempt=2, finished_at=None, outcome=None, reason=None)
    rows = attempt_rows(replace(JOB, attempts=(LOST, second)))
    assert [(row.number, row.word, row.reason) for row in rows] == [
        (1, "lost with its machine", "nothing was heard."),
        (2, "running", ""),
    ]
    assert (rows[0].where, rows[0].took) == ("node-1, ray", "1 min 1 s")
    assert rows[1].log == "/v1/jobs/job_1/logs?attempt=2"


@pytest.mark.parametrize(("state", "rows"), [(JobState.RUNNING, 0), (JobState.QUEUED, 1)])
def test_one_attempt_is_told_where_another_follows(state: JobState, rows: int) -> None:
    assert len(attempt_rows(replace(JOB, state=state, attempts=(LOST,)))) == rows


@pytest.mark.parametrize("outcome", AttemptOutcome)
def test_every_outcome_has_a_word(outcome: AttemptOutcome) -> None:
    attempts = (replace(LOST, outcome=outcome),) * 2
    assert all(row.word for row in attempt_rows(replace(JOB, attempts=attempts)))


def test_two_attempts_at_one_job_are_told_apart() -> None:
    """As when a lease was lost and the same instance claims the job again."""
    running = RunningAttempts()
    first, second = (
        RunningAttempt(Claim(JOB, Fence(JOB.id, number, "instance_a")), 60.0) for number in (1, 2)
    )
    with running.entered(first), running.entered(second):
        running.stop_job("job_other", StopReason.CANCELLED)
        assert first.stop.reason is None
        running.stop_job(JOB.id, StopReason.CANCELLED)
        running.stop_all(StopReason.SERVICE_STOPPED)  # the first reason counts
        assert first.stop.reason is second.stop.reason is StopReason.CANCELLED
    assert running.all() == []
    assert not first.out_of_time
    assert RunningAttempt(first.claim, -1.0).out_of_time
