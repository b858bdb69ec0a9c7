"""A real Ray cluster of two nodes on this machine, with token authentication."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / root for root in ("service", "probes", "kernels", "tests/service/jobs/children")]
#: The least that Ray takes; nothing here is larger than a chunk.
OBJECT_STORE = "--object-store-memory=80000000"
#: A start takes eight seconds on an idle machine, and was seen to take more than 150.
START_WITHIN_S = 400.0
#: What only the second node has.
SECOND = "second"


@dataclass
class Cluster:
    folder: Path
    token_file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(path) for path in SOURCES),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            # As tests/conftest.py sets it for the local executor: reports record it.
            "OMP_NUM_THREADS": "1",
            # A killed node is noticed within seconds, not in fifteen.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }

    @property
    def address(self) -> str:
        return (self.folder / "ray_current_cluster").read_text(encoding="utf-8").strip()

    def start_head(self) -> None:
        self._start("--head", "--port=0", "--include-dashboard=false", f"--temp-dir={self.folder}")

    def start_second(self) -> list[int]:
        """The ids of its processes."""
        before = set(self.processes())
        self._start(f"--address={self.address}", f'--resources={{"{SECOND}": 1}}')
        return sorted(set(self.processes()) - before)

    def _start(self, *options: str) -> None:
        command = "from ray.scripts.scripts import main; main()"
        common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", OBJECT_STORE]
        quiet = ["--disable-usage-stats", "--include-log-monitor=false"]
        done = subprocess.run(
            [sys.executable, "-c", command, "start", *options, *common, *quiet],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START_WITHIN_S,
        )
        assert done.returncode == 0, done.stdout.decode()

    def processes(self) -> list[int]:
        found: set[int] = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found |= {process.pid, *(one.pid for one in process.children(recursive=True))}
        return sorted(found - {os.getpid()})

    def stop(self) -> None:
        for pid in self.processes():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    # A socket's path has 107 characters at most, of which Ray takes 60.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32))
    token_file.chmod(0o600)
    running = Cluster(folder, token_file)
    try:
        running.start_head()
        running.start_second()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
