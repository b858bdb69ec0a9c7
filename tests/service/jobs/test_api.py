"""/v1/jobs: the listing."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_service.http import paging
from driftscope_service.jobs.store import JobRepository


@pytest.fixture
def many(running: Any) -> list[str]:
    """Ids of ten finished jobs, newest first; they never ran."""
    ids = []
    with running.service.database.write() as connection:
        jobs = JobRepository(connection)
        for _ in range(10):
            job = jobs.add("paired", "tiny-random-llama", {})
            jobs.request_cancel(job.id)
            ids.append(job.id)
    return ids[::-1]


@pytest.mark.parametrize("limit", [1, 3, 10, 100])
def test_pages_give_every_job_once_newest_first(running: Any, many: list[str], limit: int) -> None:
    found, cursor, pages = [], None, 0
    while True:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = running.client.get("/v1/jobs", params=query).json()
        found += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
        if cursor is None:
            break
    assert found == many
    assert pages == -(-10 // limit)


def test_new_jobs_do_not_shift_a_page(running: Any, many: list[str]) -> None:
    first = running.client.get("/v1/jobs", params={"limit": 4}).json()
    running.wait(running.start("refuse"))
    second = running.client.get("/v1/jobs", params={"cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in second["jobs"]] == many[4:]


def test_by_state(running: Any, many: list[str]) -> None:
    failed = running.start("refuse")
    running.wait(failed)
    page = running.client.get("/v1/jobs", params={"state": "failed"}).json()
    assert [job["id"] for job in page["jobs"]] == [failed]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": 0}, "query/limit"),
        ({"limit": 101}, "query/limit"),
        ({"state": "lost"}, "query/state"),
        ({"cursor": "nonsense"}, "query/cursor"),
        ({"cursor": "x" * 10_000}, "query/cursor"),
        ({"cursor": paging.encode_cursor(10**20)}, "query/cursor"),
    ],
)
def test_a_wrong_parameter_is_pointed_at(running: Any, query: dict[str, str], pointer: str) -> None:
    answer = running.client.get("/v1/jobs", params=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_logs_of_a_job_that_waits_are_empty(running: Any) -> None:
    running.wait(running.start("sleep"), "running")
    waiting = running.start("succeed")
    assert running.client.get(f"/v1/jobs/{waiting}/logs").text == ""


@pytest.mark.parametrize("path", ["", "/logs"])
def test_no_such_job(running: Any, path: str) -> None:
    assert running.client.get(f"/v1/jobs/job_none{path}").status_code == 404
    assert running.client.post("/v1/jobs/job_none/cancel").status_code == 404
