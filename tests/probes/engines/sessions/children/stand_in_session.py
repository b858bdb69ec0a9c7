"""A session without an engine: answers each row with its prompt, and fails where told to.

A prompt that starts with 13 is refused; one that starts with 66 kills the process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main, serve_questions
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import ProgressSink

UNLUCKY, DEADLY = 13, 66


def reply(question: dict[str, Any]) -> Mapping[str, Any]:
    if "open" in question:
        return {"threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid()}
    rows = question["run"]["rows"]
    first = rows[0]["prompt"][0]
    if first == UNLUCKY:
        raise RequestError("unlucky.", remedy="take another.")
    if first == DEADLY:
        print("MemoryError: out of memory", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    outputs = [{"tokens": row["prompt"], "bits": row["prompt"]} for row in rows]
    return {"outputs": outputs, "preemptions": 0, "cached_tokens": None}


def run(_request: dict[str, Any], _workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    serve_questions(reply, progress)
    return {}


if __name__ == "__main__":
    child_main(run)
