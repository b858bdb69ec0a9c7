"""The probe of the toy: counts to a size. A size of 13 kills it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.progress import Progress, ProgressSink


def run_probe(request: Mapping[str, Any], _workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    size = request["request"]["size"]
    if size == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    progress(Progress("counting", 0.5))
    return {
        "schema_version": "1",
        "kind": "toy",
        "created_at": "2026-01-01T00:00:00+00:00",
        "sizes": list(range(size)),
        "environment": {},
    }
