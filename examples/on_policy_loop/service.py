"""The service that the run is pushed to: the one that DRIFTSCOPE_URL names, or one of our own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

URL_VARIABLE = "DRIFTSCOPE_URL"
ADDRESS = re.compile(r"http://[^\s,]+")
START_WITHIN_S = 120.0
COMMAND = "from driftscope_service.cli.main import main; main()"


@contextmanager
def service(data_dir: Path) -> Iterator[str]:
    """Its address; one that was started here ends with the block, its data stay in `data_dir`."""
    if address := os.environ.get(URL_VARIABLE):
        yield address
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir)]
    log_file = data_dir / "serve.log"
    with (
        log_file.open("wb") as log,
        subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stderr=log) as process,
    ):
        try:
            yield _address(process, log_file)
        finally:
            process.terminate()


def _address(process: subprocess.Popen[bytes], log_file: Path) -> str:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        log = log_file.read_text(encoding="utf-8", errors="replace")
        if found := ADDRESS.search(log[: log.rfind("\n") + 1]):
            return found[0]
        time.sleep(0.1)
    raise SystemExit(f"driftscope serve did not start: see {log_file}")
