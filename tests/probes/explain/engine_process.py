"""A script of these tests in a process of its own, as vLLM wants it: one thread, no numba."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ENVIRONMENT: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}


def answered(script: Path, asked: Any, scratch: Path, **environment: str) -> Any:
    """What `script REQUEST RESULT` writes for `asked`."""
    request, result = scratch / "request.json", scratch / "result.json"
    request.write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, str(script), str(request), str(result)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **ENVIRONMENT,
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(result.read_text())
