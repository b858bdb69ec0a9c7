"""Processes that a killed service left running: found by the mark of their job, and killed."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from driftscope_service.jobs.probe_process import JOB_VARIABLE


def kill_orphans(job_ids: Iterable[str]) -> list[int]:
    """Kill every process that carries the mark of one of `job_ids`; returns their ids."""
    wanted = set(job_ids)
    if not wanted:
        return []
    killed = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(JOB_VARIABLE) in wanted:
                process.kill()
                killed.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone meanwhile, or another user's and so none of ours
    return killed
