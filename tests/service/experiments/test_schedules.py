"""Schedules: what they accept, and that a due one runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

NIGHT = {"cron": "30 3 * * *", "job": {"kind": "nightly"}}


def test_a_schedule_is_made_replaced_and_removed(running: Any) -> None:
    client = running.client
    made = client.put("/v1/schedules/night", json=NIGHT)
    assert made.status_code == 201, made.text
    body = made.json()
    assert (body["kind"], body["missed"], body["request"]) == ("nightly", "once", {})
    assert body["next_at"].endswith("03:30:00Z") and body["last_job"] is None
    again = client.put("/v1/schedules/night", json={**NIGHT, "missed": "skip"})
    assert (again.status_code, again.json()["missed"]) == (200, "skip")
    assert client.get("/v1/schedules").json() == [again.json()]
    assert client.delete("/v1/schedules/night").status_code == 204
    assert client.get("/v1/schedules/night").status_code == 404
    assert client.delete("/v1/schedules/night").status_code == 404


@pytest.mark.parametrize(
    "job",
    [
        {"kind": "kernels", "request": {"targets": ["torch"]}},
        {
            "kind": "determinism",
            "request": {"model": "tiny-random-llama", "axes": ["batch_size"]},
        },
    ],
)
def test_probes_can_be_scheduled(running: Any, job: dict[str, Any]) -> None:
    answer = running.client.put("/v1/schedules/p", json={"cron": "0 1 * * 0", "job": job})
    assert answer.status_code == 201, answer.text
    assert answer.json()["request"].items() >= job["request"].items()


@pytest.mark.parametrize(
    "asked",
    [
        {**NIGHT, "cron": "* * * * * *"},
        {**NIGHT, "cron": "0 0 31 2 *"},
        {**NIGHT, "missed": "twice"},
        {**NIGHT, "job": {"kind": "paired"}},
        {**NIGHT, "job": {"kind": "determinism", "request": {"model": "/etc/passwd"}}},
        {**NIGHT, "more": 1},
    ],
)
def test_what_is_refused(running: Any, asked: dict[str, Any]) -> None:
    assert running.client.put("/v1/schedules/night", json=asked).status_code == 422
    assert running.client.get("/v1/schedules").json() == []


def test_a_due_schedule_runs_its_job(running: Any, eventually: Callable[..., None]) -> None:
    running.client.put("/v1/schedules/night", json=NIGHT)
    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert running.service.scheduler.tick(tomorrow) == 1
    job = running.client.get("/v1/schedules/night").json()["last_job"]
    eventually(lambda: running.client.get(job).json()["state"] == "succeeded")
    assert len(running.client.get("/v1/nightly").json()["nights"]) == 1
