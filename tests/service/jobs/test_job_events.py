"""Server-sent events of a job: every state that is seen, in order, and an end."""

from __future__ import annotations

import json
from typing import Any

import httpx

CONTENT_TYPE = "text/event-stream"


def events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if fields:
            assert fields["event"] == "job"
            found.append(json.loads(fields["data"]))
    return found


def test_from_its_start_to_its_end(running: Any, url: str) -> None:
    job_id = running.start("succeed")
    answer = httpx.get(f"{url}/v1/jobs/{job_id}/events", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == CONTENT_TYPE
    seen = events(answer.text)
    states = [job["state"] for job in seen]
    assert states == sorted(states, key=["queued", "running", "succeeded"].index)
    assert seen[-1] == running.job(job_id)
    assert seen[-1]["state"] == "succeeded" and seen[-1]["links"]["report"]


def test_progress_arrives_while_the_job_runs(running: Any, url: str) -> None:
    """Then the job is cancelled, which ends the stream."""
    job_id = running.start("sleep")
    lines, cancelled = [], False
    with httpx.stream("GET", f"{url}/v1/jobs/{job_id}/events", timeout=30) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if '"state":"running"' in line.replace(" ", "") and not cancelled:
                running.client.post(f"/v1/jobs/{job_id}/cancel")
                cancelled = True
    assert cancelled
    assert events("\n".join(lines))[-1]["state"] == "cancelled"


def test_a_job_that_has_ended_is_one_event(running: Any) -> None:
    job_id = running.start("refuse")
    ended = running.wait(job_id)
    answer = running.client.get(ended["links"]["events"])
    assert events(answer.text) == [ended]


def test_an_unknown_job_is_not_found(running: Any) -> None:
    answer = running.client.get("/v1/jobs/job_unknown/events")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
