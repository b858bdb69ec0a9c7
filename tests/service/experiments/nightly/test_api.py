"""Nights handed in and nights run here."""

from __future__ import annotations

import json
from typing import Any

import pytest


def night(**changes: Any) -> dict[str, Any]:
    item = {
        "id": "engine/m/vllm/stock/bf16/batch_size",
        "kind": "engine",
        "expected": "differs",
        "verdict": "equal",
        "previous": "differs",
        "changed": "better",
        "as_expected": False,
        "seconds": 1.5,
        "detail": {"note": "<b>"},
        "settings": {},
        "replay": None,
    }
    return {
        "schema_version": "1",
        "kind": "nightly",
        "exit_code": 1,
        "started_at": "2026-11-21T03:30:00+00:00",
        "finished_at": "2026-11-21T03:40:00+00:00",
        "config": {"name": "ours", "sha256": "a" * 64},
        "key": {"hardware": {}, "versions": {}},
        "alarms": ["a verdict changed"],
        "items": [item],
        "changed_environment": [{"kind": "version", "name": "torch", "before": "1", "after": "2"}],
        "environment": {"packages": {"driftscope": "0"}},
        "resumed": 0,
        "budget_s": 900.0,
        "notes": [],
        **changes,
    }


def test_a_night_is_kept_whole(running: Any) -> None:
    answer = running.client.post("/v1/nightly", json=night())
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert answer.headers["location"] == body["links"]["self"]
    assert (body["exit_code"], body["items"][0]["changed"]) == (1, "better")
    report = running.client.get(body["links"]["report"]).json()
    assert report["items"][0]["detail"] == {"note": "<b>"}
    page = running.client.get(body["links"]["report_html"])
    assert page.status_code == 200 and "<b>" not in page.text.split("<main", 1)[1]
    assert running.client.get(body["links"]["self"]).json() == body


def test_a_night_that_no_page_can_show_is_refused(running: Any) -> None:
    answer = running.client.post("/v1/nightly", json=night(environment={}))
    assert answer.status_code == 422 and "cannot be shown" in answer.json()["detail"]
    assert running.client.get("/v1/nightly").json()["nights"] == []


def test_the_same_night_again_changes_nothing(running: Any) -> None:
    first = running.client.post("/v1/nightly", json=night())
    again = running.client.post("/v1/nightly", json=night())
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(running.client.get("/v1/nightly").json()["nights"]) == 1


def test_nights_are_listed_newest_first_in_pages(running: Any) -> None:
    for day in range(1, 6):
        start = f"2026-11-0{day}T03:30:00+00:00"
        running.client.post("/v1/nightly", json=night(started_at=start, finished_at=start))
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = running.client.get("/v1/nightly", params=query).json()
        seen += [entry["started_at"][8:10] for entry in page["nights"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["05", "04", "03", "02", "01"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"exit_code": 3}, "/exit_code"),
        ({"started_at": "2026-11-21T03:30:00"}, "/started_at"),
        ({"kind": "paired"}, "/kind"),
        ({"config": {"name": "x", "sha256": "short"}}, "/config/sha256"),
        ({"items": [{"id": "x"}]}, "/items/0/kind"),
        ({"changed_environment": [{"name": "x"}]}, "/changed_environment/0/kind"),
        ({"schema_version": "2"}, "/schema_version"),
    ],
)
def test_a_wrong_night_is_refused_with_its_place(
    running: Any, change: dict[str, Any], place: str
) -> None:
    answer = running.client.post("/v1/nightly", json=night(**change))
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == place
    assert running.client.get("/v1/nightly").json()["nights"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"[" * 100_000])
def test_what_is_no_night_is_refused(running: Any, body: bytes) -> None:
    answer = running.client.post("/v1/nightly", content=body)
    assert answer.status_code == 422


def test_a_number_that_is_no_json_is_refused(running: Any) -> None:
    text = json.dumps(night(budget_s=float("nan")))
    assert running.client.post("/v1/nightly", content=text).status_code == 422


def test_a_night_run_here_is_listed_too(running: Any) -> None:
    answer = running.client.post("/v1/probes/nightly")
    assert answer.status_code == 202, answer.text
    job = running.wait(answer.json()["id"])
    assert job["state"] == "succeeded", job
    (listed,) = running.client.get("/v1/nightly").json()["nights"]
    assert listed["links"]["report"] == job["links"]["report"]


def test_an_unknown_night_is_a_problem(running: Any) -> None:
    assert running.client.get("/v1/nightly/none").status_code == 404
    assert running.client.get("/v1/nightly?cursor=x").status_code == 422
