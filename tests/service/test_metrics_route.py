"""A push over HTTP shows on /metrics: its numbers, its distribution and the push itself."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse

STEP = {
    "metadata": {"schema_version": "1"},
    "rollout_logprobs": [[-0.5, -1.0, -2.0]],
    "trainer_logprobs": [[-0.5, -1.1, -2.0]],
}


def value(running: Any, name: str, **labels: str) -> float | None:
    found = [
        sample.value
        for family in parse(running.client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else None


def test_a_push_shows(running: Any) -> None:
    push = "/v1/runs/r/steps/1/logprobs"
    answer = running.client.post(push, json=STEP)
    assert answer.status_code == 201, answer.text
    assert running.client.post("/v1/runs/r/steps/2/logprobs", json={}).status_code == 400
    largest = value(running, "driftscope_run_logprob_abs_diff_max_nats", run="r")
    assert largest == answer.json()["comparison"]["abs_diff_max"]
    name = "driftscope_run_token_logprob_abs_diff_nats"
    assert value(running, f"{name}_bucket", run="r", le="0.0") == 2
    assert value(running, f"{name}_gcount", run="r") == 3
    requests = "driftscope_ingest_requests_total"
    assert value(running, requests, result="accepted") == 1
    assert value(running, "driftscope_ingest_refused_total", reason="malformed-step") == 1
    assert value(running, "driftscope_ingest_in_flight_requests") == 0
