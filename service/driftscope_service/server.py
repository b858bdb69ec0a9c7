"""The service on a socket: from checked settings to a uvicorn server that has ended.

Apart from `cli/serve.py`, so that other commands do not load a web framework.
"""

from __future__ import annotations

import copy
import gc
import socket
import sys
from logging.config import dictConfig
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from driftscope_probes.errors import ProbeError
from driftscope_service.app import create_app
from driftscope_service.jobs.executors.local import DEFAULT_MODULE
from driftscope_service.service import open_service
from driftscope_service.settings import Settings

#: Requests under way get this long at the end; probes are stopped after that.
SHUTDOWN_GRACE_S = 5


class ListenError(ProbeError):
    """The address cannot be listened on."""


def run_server(settings: Settings, *, probe_module: str = DEFAULT_MODULE) -> None:
    """Returns when the service has been told to stop and no probe is left."""
    dictConfig(_log_config())
    with (
        listen(settings) as listener,
        open_service(settings, probe_module=probe_module) as service,
    ):
        config = uvicorn.Config(
            create_app(service),
            log_config=None,  # done above: what is put in order at the start is logged as well
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        )
        service.intake.pool.warm_up()
        settle_memory()
        print(f"driftscope: {_address(listener)} (data in {settings.data_dir})", file=sys.stderr)
        uvicorn.Server(config).run(sockets=[listener])


def settle_memory() -> None:
    """Exclude the imports' objects, which stay until the end, from garbage collection: scanning
    them takes a tenth of a second, for which requests would wait, above all /metrics."""
    gc.collect()
    gc.freeze()


def listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # From here on a client waits until the service answers, instead of being refused.
        listener.listen()
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}.",
            remedy="another program probably uses the port: give another --port, or --port 0.",
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _log_config() -> dict[str, Any]:
    """uvicorn's own config plus our logger, all on stderr."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["handlers"]["access"]["stream"] = "ext://sys.stderr"
    config["loggers"]["driftscope"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
