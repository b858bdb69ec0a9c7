"""The executor `ray`: a driver process per job, which takes the job to a node of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.progress import ProgressSink
from driftscope_service.jobs.executors.base import ProgressWriter, StopSignal, Work
from driftscope_service.jobs.executors.local import JOB_VARIABLE, run_child
from driftscope_service.jobs.executors.ray.cluster import RayCluster
from driftscope_service.jobs.job import JobKind

DRIVER_MODULE: Final = "driftscope_service.jobs.executors.ray.driver"


@dataclass(frozen=True, slots=True)
class RayExecutor:
    module: str  # of the probe, on the node
    time_limit_s: float
    kinds: Mapping[str, JobKind]
    cluster: RayCluster

    @property
    def name(self) -> str:
        return "ray"

    def run(self, work: Work, stop: StopSignal, progress: ProgressWriter) -> dict[str, Any]:
        kind = self.kinds[work.request["kind"]]
        request = {
            **work.request,
            "runner": kind.runner,
            "smaller": kind.smaller,
            "module": self.module,
            "job_id": work.job_id,
        }

        def start(heard: ProgressSink) -> ChildProcess:
            mark = {JOB_VARIABLE: work.job_id}
            return self.cluster.start_driver(DRIVER_MODULE, request, work.workdir, heard, mark)

        return run_child(start, work, stop, progress, self.time_limit_s)
