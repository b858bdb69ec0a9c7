"""A service in a process of its own, its log in a file.

A pipe that nobody reads is full after 64 KiB, some 430 logged requests, and then the service hangs
in its next line: for minutes, in the middle of whichever test comes then.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 120.0
LOOK_EVERY_S = 0.05
ADDRESS = re.compile(r"http://[^\s,]+")


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def address(self) -> str:
        return self.wait_for(ADDRESS)

    def wait_for(self, wanted: re.Pattern[str]) -> str:
        """The first place of the log that fits; an AssertionError if the process ends without."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            ended = self.process.poll() is not None
            log = self.log
            # A line that is not ended may still be half written.
            if found := wanted.search(log[: log.rfind("\n") + 1]):
                return found[0]
            assert not ended and time.monotonic() < deadline, log
            time.sleep(LOOK_EVERY_S)


@contextmanager
def service_process(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[ServiceProcess]:
    """Started at once; ended at the end, by SIGKILL if SIGTERM does not."""
    with (
        tempfile.TemporaryDirectory(prefix="service-log-") as folder,
        (Path(folder) / "serve.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stderr=log) as process,
    ):
        try:
            yield ServiceProcess(process, Path(log.name))
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()
