"""A Ray cluster as the service reaches it: through drivers, which are children that import Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.progress import ProgressSink
from driftscope_service.jobs.executors.local import AT_ONCE
from driftscope_service.jobs.executors.ray.errors import (
    ClusterUnreachable,
    Versions,
    explain_driver_crash,
)
from driftscope_service.jobs.executors.ray.node import versions
from driftscope_service.jobs.executors.ray.options import ClusterOptions

#: The driver of a job ends the actor, which gives its probe five seconds, and hears that it ended.
DRIVER_GRACE_S: Final = 15.0
#: Ray's own attempts at a head: each waits for it for forty seconds, in which it can be restarted.
ATTACH_TRIES: Final = "1"


@dataclass(frozen=True, slots=True)
class RayCluster:
    options: ClusterOptions
    token_file: Path | None  # None: the cluster has no token authentication
    versions: Versions  # ours, which its nodes have to have

    def start_driver(
        self,
        module: str,
        request: Mapping[str, Any],
        workdir: Path,
        heard: ProgressSink,
        environment: Mapping[str, str],
    ) -> ChildProcess:
        """`module` finds `cluster` (ClusterOptions) and `versions` in its request."""
        return ChildProcess(
            module,
            {**request, "cluster": asdict(self.options), "versions": asdict(self.versions)},
            workdir,
            explain_crash=explain_driver_crash,
            on_progress=heard,
            environment={**environment, **AT_ONCE, **self._authentication()},
            # It would go before the file.
            inherited={n: value for n, value in os.environ.items() if n != "RAY_AUTH_TOKEN"},
            new_session=True,
            grace_s=DRIVER_GRACE_S,
        )

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


def build_cluster(options: ClusterOptions, token_file: Path | None) -> RayCluster:
    """Raises ClusterUnreachable where Ray is not installed; does not look for the cluster."""
    if find_spec("ray") is None:
        raise ClusterUnreachable(
            "the executor `ray` needs the package `ray`, which is not installed.",
            remedy="install driftscope[ray] for the service, or use --executor local.",
        )
    return RayCluster(options, token_file, versions())
