"""`driftscope serve`: API, /metrics and job executor in one process on a loopback port."""

from __future__ import annotations

import copy
import socket
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from uvicorn.config import LOGGING_CONFIG

from driftscope_probes.errors import ProbeError
from driftscope_service.app import create_app
from driftscope_service.jobs.probe_process import DEFAULT_MODULE
from driftscope_service.service import open_service
from driftscope_service.settings import Settings, load_settings

#: Requests under way get this long at the end; probes are stopped after that.
SHUTDOWN_GRACE_S = 5


class ListenError(ProbeError):
    """The address cannot be listened on."""


def serve(
    host: Annotated[
        str | None, typer.Option(help="Loopback address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes any free one.", show_default="8321")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Database, jobs and reports.", show_default="driftscope-data"),
    ] = None,
) -> None:
    """Run the service: API, /metrics and the jobs, until Ctrl-C.

    Every other setting is a DRIFTSCOPE_* variable; the options here go before them.
    """
    run_server(load_settings(host=host, port=port, data_dir=data_dir))


def run_server(settings: Settings, *, probe_module: str = DEFAULT_MODULE) -> None:
    """Returns when the service has been told to stop and no probe is left."""
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
        typer.echo(f"driftscope: {_address(listener)} (data in {settings.data_dir})", err=True)
        uvicorn.Server(config).run(sockets=[listener])


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
    """uvicorn's own, with our logger beside it."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["driftscope"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
