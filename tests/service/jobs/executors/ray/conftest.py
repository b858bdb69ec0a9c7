"""Jobs on a cluster of two nodes, which the tests of one file share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.service.ray_cluster import Cluster, two_nodes

from driftscope_service.experiments.registry import load_kinds
from driftscope_service.jobs.executors.base import ProgressWriter, StopSignal, Work
from driftscope_service.jobs.executors.local import LocalExecutor
from driftscope_service.jobs.executors.ray.cluster import build_cluster
from driftscope_service.jobs.executors.ray.executor import RayExecutor
from driftscope_service.jobs.executors.ray.options import ClusterOptions

TIME_LIMIT_S = 600.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as running:
        yield running


@pytest.fixture
def executor_on(cluster: Cluster) -> Callable[..., RayExecutor]:
    def make(
        module: str = "quick_probe", *, token_file: Path | None = None, **options: Any
    ) -> RayExecutor:
        reached = build_cluster(
            ClusterOptions(cluster.address, **options), token_file or cluster.token_file
        )
        return RayExecutor(module, TIME_LIMIT_S, load_kinds(), reached)

    return make


@dataclass
class Attempt:
    """One run of a probe, and what was seen of it."""

    workdir: Path
    job_id: str
    progress: list[str]

    def __init__(self, workdir: Path, job_id: str) -> None:
        self.workdir, self.job_id, self.progress = workdir, job_id, []
        self.stop = StopSignal()

    def run(self, executor: RayExecutor | LocalExecutor, request: dict[str, Any]) -> dict[str, Any]:
        work = Work(self.job_id, 1, request, self.workdir)
        writer = ProgressWriter(lambda made: self.progress.append(made.stage))
        try:
            return executor.run(work, self.stop, writer)
        finally:
            writer.finish()

    @property
    def log(self) -> str:
        path = self.workdir / "log.txt"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path / "attempt", f"job_{secrets.token_hex(6)}")


@pytest.fixture
def locally() -> LocalExecutor:
    return LocalExecutor("quick_probe", None, TIME_LIMIT_S, load_kinds())
