"""One probe in a process group of its own, watched: cancel, time limit, sudden death.

In: request and work folder. Out: the report, or the ProbeError that says why there is none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from driftscope_probes.children import ChildProcess
from driftscope_service.jobs.job_errors import explain_crash
from driftscope_service.jobs.progress_writer import ProgressWriter
from driftscope_service.jobs.stop_signal import StopReason, StopSignal

DEFAULT_MODULE = "driftscope_probes.run_probe"
#: Marks every process of a job, down to the engine's own; `jobs/orphans.py` looks for it.
JOB_VARIABLE = "DRIFTSCOPE_JOB_ID"
#: Clients name local models only, so that a probe has no business at the Hub.
OFFLINE = {"HF_HUB_OFFLINE": "1"}
#: How soon a cancel takes effect; two system calls per tick.
TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class ProbeProcess:
    module: str
    python: Path | None
    time_limit_s: float

    def run(
        self,
        job_id: str,
        request: Mapping[str, Any],
        workdir: Path,
        stop: StopSignal,
        progress: ProgressWriter,
    ) -> dict[str, Any]:
        """Raises Cancelled for whatever reason `stop` then names."""
        child = ChildProcess(
            self.module,
            request,
            workdir,
            explain_crash=partial(explain_crash, request["kind"]),
            on_progress=progress.offer,
            environment={JOB_VARIABLE: job_id, **OFFLINE},
            new_session=True,
            python=str(self.python or sys.executable),
        )
        ended = threading.Event()
        deadline = time.monotonic() + self.time_limit_s
        watch = threading.Thread(
            target=_watch, args=(child, stop, deadline, progress, ended), name=f"watch-{job_id}"
        )
        watch.start()
        try:
            return child.wait()
        finally:
            ended.set()
            watch.join()
            # A probe that ended by itself may have left a process of its group behind.
            child.terminate()


def _watch(
    child: ChildProcess,
    stop: StopSignal,
    deadline: float,
    progress: ProgressWriter,
    ended: threading.Event,
) -> None:
    while not ended.wait(TICK_S):
        progress.flush()
        if time.monotonic() > deadline:
            stop.request(StopReason.TIMED_OUT)
        if stop.reason is not None:
            return child.cancel()
        if _dead(child.pid):
            # Its children may hold the progress pipe open, on which wait() would then hang.
            return child.terminate()


def _dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
