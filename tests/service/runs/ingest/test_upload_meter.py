"""Pushes are counted by result and reason, whatever refuses them; other requests are not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from safetensors.numpy import save
from starlette.testclient import TestClient
from starlette.types import Message

from driftscope_service.app import create_app
from driftscope_service.http.errors import PROBLEM
from driftscope_service.runs.ingest.upload_meter import (
    REASONS,
    UploadCounts,
    UploadMeter,
)

STEP = {"rollout_logprobs": [[-0.5, -1.0]], "trainer_logprobs": [[-0.5, -1.1]]}
PUSH = "/v1/runs/r/steps/1/logprobs"


@pytest.fixture
def counts() -> UploadCounts:
    return UploadCounts()


@pytest.fixture
def client(running: Any, counts: UploadCounts) -> Iterator[TestClient]:
    app = UploadMeter(create_app(running.service), counts)
    # The fixture has started the service already.
    yield TestClient(app, base_url="http://127.0.0.1:8321", raise_server_exceptions=False)


def body(**changed: Any) -> dict[str, Any]:
    return {"metadata": {"schema_version": "1"}, **STEP, **changed}


def counted(counts: UploadCounts) -> dict[str, float]:
    """Values by name and label."""
    text = "".join(family.text(openmetrics=False) for family in counts.families(4))
    return {
        " ".join((found.name, *found.labels.values())): found.value
        for family in parse(text)
        for found in family.samples
    }


def results(found: dict[str, float]) -> dict[str, float]:
    return _labelled(found, "driftscope_ingest_requests_total ")


def reasons(found: dict[str, float]) -> dict[str, float]:
    return _labelled(found, "driftscope_ingest_refused_total ")


def _labelled(found: dict[str, float], start: str) -> dict[str, float]:
    return {
        name.removeprefix(start): value
        for name, value in found.items()
        if name.startswith(start) and value > 0
    }


def test_results_and_bytes(client: TestClient, counts: UploadCounts) -> None:
    client.post("/v1/runs/r/attempts", json={"id": "a"})
    first = client.post(f"{PUSH}?attempt=a", json=body())
    assert first.status_code == 201, first.text
    sent = len(first.request.content)
    assert client.post(f"{PUSH}?attempt=a", json=body()).status_code == 200
    other = body(trainer_logprobs=[[-0.5, -9.0]])
    assert client.post(f"{PUSH}?attempt=a", json=other).status_code == 409
    assert client.post(PUSH.replace("/1/", "/2/"), json={}).status_code == 400
    assert client.post("/v1/runs/r/steps/9/complete").status_code == 404
    found = counted(counts)
    assert results(found) == {"accepted": 1, "known": 1, "refused": 3}
    assert reasons(found) == {"step-conflict": 1, "malformed-step": 1, "not-found": 1}
    assert found["driftscope_ingest_received_bytes_total"] >= 3 * sent
    assert found["driftscope_ingest_in_flight_requests"] == 0
    assert found["driftscope_ingest_duration_seconds_count"] == 5
    assert found["driftscope_ingest_duration_seconds_sum"] > 0


def test_what_a_guard_refuses_counts_as_well(client: TestClient, counts: UploadCounts) -> None:
    client.post(PUSH, json=body(), headers={"host": "elsewhere.example"})
    client.post(PUSH, content=b"", headers={"content-type": "application/json",
                                            "content-length": str(2**40)})  # fmt: skip
    client.post(PUSH, content=save({}), headers={"content-type": "text/css"})
    assert reasons(counted(counts)) == {
        "wrong-host": 1,
        "content-too-large": 1,
        "unsupported-media-type": 1,
    }


@pytest.mark.parametrize("path", ["/v1/runs/r/steps", "/v1/runs/r/steps/1", "/metrics"])
def test_other_requests_are_not_counted(
    client: TestClient, counts: UploadCounts, path: str
) -> None:
    client.get(path)
    client.put("/v1/runs/r", json={})
    assert results(counted(counts)) == {}


@pytest.mark.parametrize(
    ("status", "problem", "reason"),
    [
        (503, "analysis-failed", "analysis-failed"),
        (503, "made-up", "internal-error"),
        (415, "", "internal-error"),
        (400, None, "internal-error"),
        (None, None, "internal-error"),
    ],
)
def test_reasons_are_names_of_problems(
    counts: UploadCounts, status: int | None, problem: str | None, reason: str
) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(counted(counts)["driftscope_ingest_in_flight_requests"])
        if problem is not None:
            scope["state"][PROBLEM] = problem
        if status is None:
            raise RuntimeError
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Message) -> None:
        pass

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "POST", "path": PUSH}
    try:
        asyncio.run(UploadMeter(app, counts)(scope, receive, send))
    except RuntimeError:
        assert status is None
    found = counted(counts)
    assert (seen, found["driftscope_ingest_in_flight_requests"]) == ([1], 0)
    assert (results(found), reasons(found)) == ({"refused": 1}, {reason: 1})


def test_everything_is_exported_from_the_start() -> None:
    families = {family.metric.name: family for family in UploadCounts().families(4)}
    text = families["driftscope_ingest_refused_total"].text(openmetrics=False)
    assert text.count("\ndriftscope_ingest_refused_total{") == len(REASONS)
    assert text.count("} 0.0\n") == len(REASONS)
