"""Servers under measurement: real processes, each on a free port of loopback.

In: Python source that prints its address on standard error. Out: address and process id.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: A service ends once its analysis and its probes have.
PATIENCE_S = 300.0
#: The service, on the data folder that is its argument.
SERVICE = """
import sys
from driftscope_service.server import run_server
from driftscope_service.settings import load_settings
run_server(load_settings(port=0, data_dir=sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Served:
    address: str
    pid: int


@contextmanager
def served(source: str, *arguments: str, descriptors: int | None = None) -> Iterator[Served]:
    """`descriptors`: that the process may have open; None: as many as this one."""

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    process = subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )
    assert process.stderr is not None
    try:
        address = next(
            found[0] for line in process.stderr if (found := re.search(r"http://\S+", line))
        )
        # The log goes on: somebody has to take it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Served(address, process.pid)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
