"""Real processes of the service that are killed and started again.

In: a data folder, and perhaps the address of a PostgreSQL database and a storage that several
share. Out: a process that answers, or TimeoutError with the end of its log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).parents[3]
CHILDREN: Final = ROOT / "tests" / "service" / "jobs" / "children"
#: Ready again within this time, as docs/promises.md says; a start that takes longer is counted.
READY_WITHIN_S: Final = 5.0
#: When a start is given up: imports alone take two seconds on a busy machine.
PATIENCE_S: Final = 240.0
LOOK_EVERY_S: Final = 0.02
_SERVE: Final = """
import gc, sys
gc.disable()  # as `driftscope serve` does
from driftscope_service.server import run_server
from driftscope_service.settings import load_settings
run_server(load_settings(port=int(sys.argv[1]), data_dir=sys.argv[2]), probe_module="quick_probe")
"""


@dataclass(slots=True)
class Replica:
    """One address, whichever process answers there."""

    port: int
    data_dir: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ready_s: list[float] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.log")

    def start(self) -> None:
        self.starts += 1
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(self.port), str(self.data_dir)],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._until_ready(began)

    def _until_ready(self, began: float) -> None:
        assert self.process is not None
        while time.monotonic() - began < PATIENCE_S:
            if self.process.poll() is not None:
                raise TimeoutError(f"the service ended by itself:\n{self.log_tail()}")
            try:
                answer = httpx.get(f"{self.address}/readyz", timeout=READY_WITHIN_S)
            except httpx.HTTPError:
                time.sleep(LOOK_EVERY_S)
                continue
            if answer.status_code == httpx.codes.OK:
                self.ready_s.append(time.monotonic() - began)
                return
            time.sleep(LOOK_EVERY_S)
        raise TimeoutError(f"the service did not become ready:\n{self.log_tail()}")

    def kill(self) -> None:
        """As the kernel does it when memory runs out: no handler runs."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_S)

    def log_tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


def environment(locks: Path, database_url: str | None, storage: Path | None) -> dict[str, str]:
    paths = [str(CHILDREN), *(str(ROOT / name) for name in ("service", "probes", "kernels"))]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "KILL_ROUNDS_LOCKS": str(locks)}
    if database_url is not None:
        variables["DRIFTSCOPE_DATABASE_URL"] = database_url
    if storage is not None:
        variables["DRIFTSCOPE_STORAGE_URL"] = storage.as_uri()
    return variables
