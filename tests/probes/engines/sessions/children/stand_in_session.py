"""A session without an engine: answers each row with its prompt, and fails where told to.

A prompt that starts with 13 is refused; one that starts with 66 kills the process; one that starts
with 77 is answered with bits that every process has of its own, and after a reload others again.
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

UNLUCKY, DEADLY, LAUNCHED = 13, 66, 77
#: Whether the engine that is open was reloaded.
_reloaded: list[bool] = []


def reply(question: dict[str, Any]) -> Mapping[str, Any]:
    if "open" in question:
        _reloaded.clear()
        return {"threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid()}
    rows = question["run"]["rows"]
    first = rows[0]["prompt"][0]
    if first == UNLUCKY:
        raise RequestError("unlucky.", remedy="take another.")
    if first == DEADLY:
        print("MemoryError: out of memory", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if "reload" in question["run"]["before"]:
        _reloaded.append(True)
    outputs = [{"tokens": row["prompt"], "bits": row["prompt"]} for row in rows]
    if first == LAUNCHED:
        own = 2 * os.getpid() + len(_reloaded)
        outputs = [output | {"bits": [own] * len(output["tokens"])} for output in outputs]
    return {"outputs": outputs, "preemptions": 0, "cached_tokens": None}


def run(_request: dict[str, Any], _workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    serve_questions(reply, progress)
    return {}


if __name__ == "__main__":
    child_main(run)
