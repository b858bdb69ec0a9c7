"""Jobs as samples: a state without jobs is 0, what does not exist has no sample."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from driftscope_service.jobs.job import AttemptOutcome, JobError, JobState
from driftscope_service.jobs.metrics import job_families, retry_families
from driftscope_service.jobs.retries import RETRIES
from driftscope_service.jobs.run_job import JobCounts
from driftscope_service.jobs.store import LastJob

EPOCH = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)


def samples(*given: Any) -> list[list[str]]:
    counts, oldest, finished, ended, settings = given
    families = [*job_families(counts, oldest, finished, settings), *retry_families(ended)]
    texts = [family.text(openmetrics=False) for family in families]
    return [[line for line in text.splitlines() if line[0] != "#"] for text in texts]


def test_a_service_without_jobs(make_settings: Any) -> None:
    nothing = dict.fromkeys(JobState, 0)
    given: Any = nothing, None, [], JobCounts(), make_settings()
    states, oldest, queued, limit, durations, expired, retries = samples(*given)
    assert len(states) == len(JobState) and all(line.endswith(" 0.0") for line in states)
    assert oldest == durations == []
    assert (len(queued), len(limit), len(expired)) == (1, 1, 1)
    assert len(retries) == len(RETRIES) and all(line.endswith(" 0.0") for line in retries)


def test_a_service_with_jobs(make_settings: Any) -> None:
    settings = make_settings(max_queued_jobs=7, job_time_limit_seconds=9)
    counts = {state: index for index, state in enumerate(JobState)}
    last = [LastJob("paired", JobState.FAILED, 2.5), LastJob("kernels", JobState.SUCCEEDED, 4)]
    ended = JobCounts()
    ended.ended(JobError("OwnerLost", "m", "r"), AttemptOutcome.LOST, retried=True)
    ended.ended(JobError("EngineError", "m", "r"), AttemptOutcome.FAILED, retried=False)
    given: Any = counts, EPOCH, last, ended, settings
    states, oldest, queued, limit, durations, expired, retries = samples(*given)
    for state, line in zip(JobState, states, strict=True):
        assert f'"{state}"' in line and line.endswith(f" {counts[state]}.0")
    assert [line.split()[1] for line in (*oldest, *queued, *limit)] == ["60.0", "7.0", "9.0"]
    assert [line.split()[1] for line in durations] == ["2.5", "4.0"]
    assert 'kind="paired",state="failed"' in durations[0]
    assert expired[0].split()[1] == "1.0"
    assert [line for line in retries if not line.endswith(" 0.0")] == [
        'driftscope_job_retries_total{reason="OwnerLost"} 1.0'
    ]
