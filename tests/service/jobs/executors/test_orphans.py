"""Orphans: exactly the processes that carry the mark."""

from __future__ import annotations

import os
import subprocess
import sys

from driftscope_service.jobs.executors.local import ATTEMPT_VARIABLE, JOB_VARIABLE, kill_orphans


def sleeper(job_id: str, attempt: int = 1) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, JOB_VARIABLE: job_id, ATTEMPT_VARIABLE: str(attempt)},
    )


def test_only_marked_processes_are_killed() -> None:
    ours, other = sleeper("job_ours"), sleeper("job_other")
    newer = sleeper("job_ours", 2)
    try:
        assert kill_orphans([("job_ours", 1), ("job_gone", 1)]) == [ours.pid]
        assert ours.wait(10) < 0
        # Another attempt at the same job may be a live instance's.
        assert other.poll() is newer.poll() is None
        assert kill_orphans([]) == []
    finally:
        for process in (other, newer):
            process.kill()
            process.wait()
