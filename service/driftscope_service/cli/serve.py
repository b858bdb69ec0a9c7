"""`driftscope serve`: API, /metrics and job executor in one process on one port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; beyond loopback an API key has to exist.",
            show_default="127.0.0.1",
        ),
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
    # Here, since the other commands do not need a web framework and start faster without.
    from driftscope_service.server import run_server
    from driftscope_service.settings import load_settings

    run_server(load_settings(host=host, port=port, data_dir=data_dir))
