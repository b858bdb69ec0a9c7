"""The service on a socket: from checked settings to a uvicorn server that has ended.

Apart from `cli/serve.py`, so that other commands do not load a web framework.
"""

from __future__ import annotations

import gc
import ipaddress
import socket
import sys
from logging.config import dictConfig

import uvicorn

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.errors import ProbeError
from driftscope_service.app import create_app
from driftscope_service.http.connection_limits import (
    ConnectionLimits,
    Connections,
    connections_possible,
)
from driftscope_service.http.log_format import log_config
from driftscope_service.http.protocol import limited_protocol
from driftscope_service.jobs.executors.local import DEFAULT_MODULE
from driftscope_service.service import open_service
from driftscope_service.settings import Settings

#: Requests under way get this long at the end; probes are stopped after that.
SHUTDOWN_GRACE_S = 5
#: Connections that the system holds until they are taken. The event loop takes as many at a time,
#: and each needs a descriptor before a limit can refuse it: fewer than are spared for that.
BACKLOG = 64


class ListenError(ProbeError):
    """The address cannot be listened on."""


def run_server(settings: Settings, *, probe_module: str = DEFAULT_MODULE) -> None:
    """Returns when the service has been told to stop and no probe is left."""
    dictConfig(log_config(settings.log_format))
    with (
        listen(settings) as listener,
        open_service(settings, probe_module=probe_module) as service,
    ):
        config = uvicorn.Config(
            create_app(service),
            # A subclass for this process, so that its limits hold over all connections.
            http=limited_protocol(Connections(connection_limits(settings))),
            ws="none",
            backlog=BACKLOG,
            log_config=None,  # done above: what is put in order at the start is logged as well
            access_log=False,  # http/request_log says more
            proxy_headers=False,  # the application does, from proxies that are trusted
            server_header=False,
            timeout_keep_alive=settings.keep_alive_timeout_seconds,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        )
        catalogue()  # what is refused of it stands at the top of the log
        service.intake.pool.warm_up()
        settle_memory()
        print(f"driftscope: {_address(listener)} (data in {settings.data_dir})", file=sys.stderr)
        uvicorn.Server(config).run(sockets=[listener])


def settle_memory() -> None:
    """Exclude the imports' objects, which stay until the end, from garbage collection: scanning
    them takes a tenth of a second, for which requests would wait, above all /metrics."""
    gc.collect()
    gc.freeze()
    gc.enable()


def listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # From here on a client waits until the service answers, instead of being refused.
        listener.listen(BACKLOG)
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


def connection_limits(settings: Settings) -> ConnectionLimits:
    """What the settings say, within what this process may open."""
    possible = connections_possible(settings.max_connections)
    return ConnectionLimits(
        connections=possible,
        per_address=min(settings.max_connections_per_address, possible),
        unlimited=tuple(ipaddress.ip_network(one) for one in settings.trusted_proxies),
        header_timeout_s=settings.header_timeout_seconds,
    )
