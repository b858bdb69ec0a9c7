"""`driftscope demo load`: recorded runs and reports into a data folder, to look at the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope_service.cli.progress_bar import progress_bar

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _demo() -> None:
    """Recorded data, for a first look at the pages and dashboards."""


@app.command()
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
