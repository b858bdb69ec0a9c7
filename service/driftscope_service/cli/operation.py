"""`driftscope serve`, `db` and `demo`: what runs on the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope_service.terminal.command_output import progress_bar


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


db_app = typer.Typer(no_args_is_help=True)


@db_app.callback()
def _db() -> None:
    """The service's database."""


@db_app.command()
def upgrade(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the service.", show_default="driftscope-data"),
    ] = None,
) -> None:
    """Migrate the database to this version's schema. `serve` does the same when it starts."""
    # Here, since the other commands do not need a database and start faster without.
    from driftscope_service.service import held_data_dir
    from driftscope_service.settings import load_settings
    from driftscope_service.store import migrate

    settings = load_settings(data_dir=data_dir)
    with held_data_dir(settings.data_dir):
        migrate.upgrade(settings.database)
    typer.echo(f"{settings.database} is at revision {migrate.newest_revision()}.")


demo_app = typer.Typer(no_args_is_help=True)


@demo_app.callback()
def _demo() -> None:
    """Recorded data, for a first look at the pages and dashboards."""


@demo_app.command()
def load(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the service.", show_default="driftscope-data"),
    ] = None,
) -> None:
    """Load three recorded training runs, a probe of each kind and two nights.

    Then `driftscope serve` with the same folder shows full pages. Loading again changes nothing.
    """
    # Here, since the other commands do not need a web framework and start faster without.
    from driftscope_service.demo.load import load_demo
    from driftscope_service.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    with progress_bar() as show:
        loaded = load_demo(settings, show)
    typer.echo(
        f"{loaded.runs} runs with {loaded.steps} steps, {loaded.reports} new reports in "
        f"{settings.data_dir}. Now: driftscope serve --data-dir {settings.data_dir}"
    )
