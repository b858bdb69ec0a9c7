"""Orphans: exactly the processes that carry the mark."""

from __future__ import annotations

import os
import subprocess
import sys

from driftscope_service.jobs.executors.local import JOB_VARIABLE, kill_orphans


def sleeper(job_id: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, JOB_VARIABLE: job_id},
    )


def test_only_marked_processes_are_killed() -> None:
    ours, other = sleeper("job_ours"), sleeper("job_other")
    try:
        assert kill_orphans(["job_ours", "job_gone"]) == [ours.pid]
        assert ours.wait(10) < 0
        assert other.poll() is None
        assert kill_orphans([]) == []
    finally:
        other.kill()
        other.wait()
