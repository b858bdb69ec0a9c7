"""The executor `ray`: a driver process per job, which takes the job to a node of a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.progress import ProgressSink
from driftscope_service.jobs.executors.base import ProgressWriter, StopSignal, Work
from driftscope_service.jobs.executors.local import AT_ONCE, JOB_VARIABLE, run_child
from driftscope_service.jobs.executors.ray.errors import (
    ClusterUnreachable,
    Versions,
    explain_driver_crash,
)
from driftscope_service.jobs.executors.ray.node import versions
from driftscope_service.jobs.executors.ray.options import ClusterOptions
from driftscope_service.jobs.job import JobKind

DRIVER_MODULE: Final = "driftscope_service.jobs.executors.ray.driver"
#: The driver ends the actor, which gives its probe five seconds, and hears that it has ended.
DRIVER_GRACE_S: Final = 15.0
#: Ray's own attempts at a head, a second each; the driver repeats them, but not for a wrong token.
ATTACH_TRIES: Final = "3"


@dataclass(frozen=True, slots=True)
class RayExecutor:
    module: str  # of the probe, on the node
    time_limit_s: float
    kinds: Mapping[str, JobKind]
    options: ClusterOptions
    token_file: Path | None  # None: the cluster has no token authentication
    versions: Versions

    @property
    def name(self) -> str:
        return "ray"

    def run(self, work: Work, stop: StopSignal, progress: ProgressWriter) -> dict[str, Any]:
        kind = self.kinds[work.request["kind"]]

        def start(heard: ProgressSink) -> ChildProcess:
            return ChildProcess(
                DRIVER_MODULE,
                {
                    **work.request,
                    "runner": kind.runner,
                    "smaller": kind.smaller,
                    "module": self.module,
                    "job_id": work.job_id,
                    "cluster": asdict(self.options),
                    "versions": asdict(self.versions),
                },
                work.workdir,
                explain_crash=explain_driver_crash,
                on_progress=heard,
                environment={JOB_VARIABLE: work.job_id, **AT_ONCE, **self._authentication()},
                # It would go before the file.
                inherited={n: value for n, value in os.environ.items() if n != "RAY_AUTH_TOKEN"},
                new_session=True,
                grace_s=DRIVER_GRACE_S,
            )

        return run_child(start, work, stop, progress, self.time_limit_s)

    def _authentication(self) -> dict[str, str]:
        """The path alone: the token itself is never in our memory, nor in the node's probe."""
        tries = {"RAY_NUM_REDIS_GET_RETRIES": ATTACH_TRIES}
        if self.token_file is None:
            return {**tries, "RAY_AUTH_MODE": "disabled"}
        return {
            **tries,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
        }


def build_ray_executor(
    module: str,
    time_limit_s: float,
    kinds: Mapping[str, JobKind],
    options: ClusterOptions,
    token_file: Path | None,
) -> RayExecutor:
    """Raises ClusterUnreachable where Ray is not installed; does not look for the cluster."""
    if find_spec("ray") is None:
        raise ClusterUnreachable(
            "the executor `ray` needs the package `ray`, which is not installed.",
            remedy="install driftscope[ray] for the service, or use --executor local.",
        )
    return RayExecutor(module, time_limit_s, kinds, options, token_file, versions())
