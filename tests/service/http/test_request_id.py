"""Identifiers of requests."""

from __future__ import annotations

from typing import Any


def test_every_answer_has_its_own(running: Any) -> None:
    found = [
        running.client.get(path).headers["x-request-id"]
        for path in ("/healthz", "/healthz", "/nowhere")
    ]
    assert len(set(found)) == 3
    assert all(identifier.startswith("req_") for identifier in found)


def test_a_problem_names_the_identifier_of_its_header(running: Any) -> None:
    answer = running.client.get("/v1/jobs/none", headers={"x-request-id": "mine"})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != "mine"
