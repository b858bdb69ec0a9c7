"""Determinism probes over the API: what is accepted, and what is kept of them."""

from __future__ import annotations

from typing import Any

import pytest

ASKED = {
    "model": "tiny-random-llama",
    "axes": ["batch_size", "position", "preemption"],
    "batch_sizes": [1, 2],
}


def finished(running: Any, **changes: Any) -> str:
    answer = running.client.post("/v1/probes/determinism", json={**ASKED, **changes})
    assert answer.status_code == 202, answer.text
    job = running.wait(answer.json()["id"])
    assert job["state"] == "succeeded", job
    return str(job["links"]["report"])


def test_the_report_is_kept_as_json_and_as_a_page(running: Any) -> None:
    path = finished(running)
    report = running.client.get(path).json()
    assert [axis["verdict"] for axis in report["axes"]] == ["differs", "equal", "not_run"]
    page = running.client.get(path.removeprefix("/v1"))
    assert page.status_code == 200
    assert "batch_size = 2" in page.text and "no &lt;b&gt;pressure" in page.text
    assert "script-src" not in page.headers["content-security-policy"]


def test_verdicts_replace_those_on_the_same_subject(running: Any) -> None:
    from driftscope_service.experiments.determinism.store import DeterminismRepository

    finished(running)
    last = finished(running, axes=["batch_size"])
    with running.service.database.read() as connection:
        verdicts = DeterminismRepository(connection).all()
    assert [(v.axis, v.verdict, v.mismatched_tokens) for v in verdicts] == [
        ("batch_size", "differs", 24),
        ("position", "equal", 0),
        ("preemption", "not_run", None),
    ]
    assert last.endswith(verdicts[0].report_id) and not last.endswith(verdicts[1].report_id)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "/etc"},
        {"server_url": "http://10.0.0.1"},
        {"engine": "vllm-server"},
        {"engine": "vllm-server", "engine_endpoint": "nowhere"},
        {"engine_endpoint": "nowhere"},
        {"threads": 1024},
        {"samples": 10_000, "max_tokens": 4096},
        {"axes": ["nonsense"]},
    ],
)
def test_what_is_refused(running: Any, change: dict[str, Any]) -> None:
    answer = running.client.post("/v1/probes/determinism", json={**ASKED, **change})
    assert answer.status_code == 422, answer.text


def test_a_server_is_named_not_addressed(run_service: Any) -> None:
    endpoint = {"url": "http://10.0.0.7:8000", "model": "m"}
    with run_service(engine_endpoints={"gpu": endpoint}) as running:
        path = finished(running, engine="vllm-server", engine_endpoint="gpu", axes=["batch_size"])
        request = running.client.get(path).json()["request"]
    assert (request["server_url"], request["server_model"]) == (endpoint["url"], "m")
