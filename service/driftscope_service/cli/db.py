"""`driftscope db upgrade`: bring the database of a data folder to the newest schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _db() -> None:
    """The service's database."""


@app.command()
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
