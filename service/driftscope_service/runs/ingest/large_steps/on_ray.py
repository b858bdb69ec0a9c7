"""Large steps on a Ray cluster: a driver process per step, which takes its shards to the nodes.

Never imports Ray. Whatever goes wrong with the cluster, the shards stay in the storage, and the
step can be completed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.engines.settings import available_cores
from driftscope_probes.errors import Cancelled
from driftscope_probes.progress import ProgressSink, discard
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import ServiceError
from driftscope_service.jobs.executors.base import (
    NodeLost,
    ProgressWriter,
    StopReason,
    StopSignal,
    Work,
)
from driftscope_service.jobs.executors.local import run_child
from driftscope_service.jobs.executors.ray.cluster import RayCluster
from driftscope_service.jobs.executors.ray.errors import (
    ClusterRefused,
    ClusterUnreachable,
    NodeMismatch,
    TransferError,
)
from driftscope_service.jobs.job import LOG_NAME
from driftscope_service.runs.ingest.analysis import RunFacts, StepAnalysis, StepPart

DRIVER_MODULE: Final = "driftscope_service.runs.ingest.large_steps.driver"
#: Of the cluster, not of what was pushed.
CLUSTER_ERRORS: Final = (
    ClusterRefused, ClusterUnreachable, NodeLost, NodeMismatch, TransferError
)  # fmt: skip
#: A node is replaced, or a head restarted, in half a minute at best.
RETRY_S: Final = 30
#: On how many threads a sum is split, and so its last bits, depends on it.
THREADS_VARIABLE: Final = "OMP_NUM_THREADS"
_log = logging.getLogger("driftscope")


class LargeStepsOnRay:
    def __init__(self, cluster: RayCluster, steps_at_once: int, time_limit_s: float) -> None:
        self._cluster = cluster
        self._time_limit_s = time_limit_s
        # Threads of their own: the service's other ones must not wait for a cluster.
        self._threads = ThreadPoolExecutor(steps_at_once, thread_name_prefix="large-step")
        self._under_way: set[StopSignal] = set()

    async def analyze(self, parts: Sequence[StepPart], run: RunFacts, floors: Path) -> StepAnalysis:
        request = {
            "kind": "large-step",
            "parts": [{"path": str(one.path), "format": one.step_format} for one in parts],
            "run": asdict(run),
            "floors": str(floors),
            "environment": {
                THREADS_VARIABLE: os.environ.get(THREADS_VARIABLE, str(available_cores()))
            },
        }
        stop = StopSignal()
        self._under_way.add(stop)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._analyze, request, stop
            )
        finally:
            # Cancelled, nobody is left to take the answer.
            stop.request(StopReason.SERVICE_STOPPED)
            self._under_way.discard(stop)

    def stop(self) -> None:
        for stop in tuple(self._under_way):
            stop.request(StopReason.SERVICE_STOPPED)
        self._threads.shutdown(cancel_futures=True)

    def _analyze(self, request: Mapping[str, Any], stop: StopSignal) -> StepAnalysis:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="driftscope-large-step-") as folder:
            found = self._answer(request, Path(folder), stop)
        _log.info("%d shards analysed on the cluster: %s", len(request["parts"]), found["nodes"])
        analysis = StepAnalysis.from_dict(found["analysis"])
        return replace(analysis, took_s=time.perf_counter() - began)

    def _answer(
        self, request: Mapping[str, Any], workdir: Path, stop: StopSignal
    ) -> dict[str, Any]:
        def start(heard: ProgressSink) -> ChildProcess:
            return self._cluster.start_driver(DRIVER_MODULE, request, workdir, heard, {})

        work = Work(workdir.name, 1, request, workdir)
        try:
            return run_child(start, work, stop, ProgressWriter(discard), self._time_limit_s)
        except CLUSTER_ERRORS as error:
            told = (workdir / LOG_NAME).read_text(encoding="utf-8", errors="replace")
            _log.warning("a large step was not analysed: %s %s", error.message, told)
            raise _later(error.message, error.remedy) from None
        except Cancelled:
            if stop.reason is StopReason.TIMED_OUT:
                raise _later(
                    f"the cluster did not analyse it within {self._time_limit_s:g} s.",
                    "add nodes, or raise DRIFTSCOPE_JOB_TIME_LIMIT_SECONDS.",
                ) from None
            raise _later("the service is being stopped.", "wait until it runs again.") from None


def _later(reason: str, remedy: str) -> ServiceError:
    return ServiceError(
        problem_kinds.ANALYSIS_FAILED,
        f"the step could not be analysed on the Ray cluster: {reason}",
        headers={"Retry-After": str(RETRY_S)},
        remedy=f"{remedy} Its shards are kept: complete the step again.",
    )
