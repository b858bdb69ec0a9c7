"""A service on a real port of loopback for as long as something talks to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from driftscope_probes.errors import ProbeError
from driftscope_service.app import create_app
from driftscope_service.server import listen
from driftscope_service.service import Service
from driftscope_service.settings import Settings

START_TIMEOUT_S = 60.0


class DemoError(ProbeError):
    """The recordings cannot be loaded."""


@contextmanager
def served(service: Service, settings: Settings) -> Iterator[str]:
    """The address of the service, which answers until the block ends."""
    listener = listen(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        _wait(server, thread)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise DemoError("the service did not start.", remedy="see the log above.")
        time.sleep(0.02)
