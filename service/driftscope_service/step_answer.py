"""The answer about a complete step, as the bytes of one JSON object.

The analysis was written as JSON when it was made, and is passed on as it was: reading it only to
write it again would take the event loop's time for every answer.
"""

from __future__ import annotations

import json
from typing import Any

from driftscope_service.step_schemas import run_path, step_path
from driftscope_service.store.step_repository import StoredStep


def step_answer(stored: StoredStep) -> bytes:
    """A StepAnalysis."""
    head: dict[str, Any] = {
        "run": stored.run,
        "step": stored.step,
        "state": "complete",
        "content_sha256": stored.content_sha256,
        "received_at": stored.received_at.isoformat().replace("+00:00", "Z"),
        "tokens": stored.tokens,
        "sequences": stored.sequences,
        "size_bytes": stored.size_bytes,
        "shards": stored.shards,
        "metadata": stored.metadata,
        "tokens_kept": stored.kept_bytes > 0,
        "links": {"self": step_path(stored.run, stored.step), "run": run_path(stored.run)},
    }
    assert stored.analysis.startswith(b'{"'), "an object with members"
    return json.dumps(head).encode()[:-1] + b"," + stored.analysis[1:]
