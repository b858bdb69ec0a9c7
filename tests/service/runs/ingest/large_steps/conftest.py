"""Steps of several shards, pushed to a service that takes them for large ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from driftscope_service.runs.ingest import accept


@pytest.fixture
def push_shards(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`most`: of tokens, in a step that is not large."""

    def push(pushing: Any, run: str, bodies: Sequence[bytes], most: int = 10) -> None:
        monkeypatch.setattr(accept, "LARGEST_WHOLE_STEP", most)
        for shard, body in enumerate(bodies):
            place = {"shard": shard, "shards": len(bodies)}
            answer = pushing.push(body, run=run, params=place)
            assert answer.status_code == 201, answer.text

    return push


@pytest.fixture
def complete() -> Callable[..., Any]:
    return lambda pushing, run: pushing.client.post(f"/v1/runs/{run}/steps/1/complete")
