"""Request bodies up to a size, with and without a declared length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LIMIT = 2048


def test_a_declared_length_over_the_limit(run_service: Any) -> None:
    with run_service(max_body_bytes=LIMIT) as running:
        answer = running.post("x" * LIMIT)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/content-too-large"
        assert str(LIMIT) in answer.json()["detail"]


def test_a_chunked_body_over_the_limit(run_service: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"model": "tiny-random-llama", "prompts": ["'
        for _ in range(LIMIT):
            yield b"xxxx"
        yield b'"]}'

    with run_service(max_body_bytes=LIMIT) as running:
        answer = running.client.post(
            "/v1/probes/paired", content=chunks(), headers={"content-type": "application/json"}
        )
        assert answer.request.headers.get("content-length") is None
        assert answer.status_code == 413
        assert answer.json()["type"] == "/problems/content-too-large"
        assert running.client.get("/v1/jobs").json()["jobs"] == []


def test_a_body_just_within_the_limit(run_service: Any) -> None:
    with run_service(max_body_bytes=LIMIT) as running:
        assert running.post("sleep" + " " * (LIMIT - 300)).status_code == 202
