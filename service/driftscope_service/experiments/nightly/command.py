"""`driftscope nightly`: prove again what is expected of kernels and engines; say what changed.

Exit codes: 0 as expected, 1 a verdict, hardware or a library version changed, or a verdict is not
the expected one, 2 something could not be run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from driftscope_probes.errors import ProbeError
from driftscope_probes.models.cache import home
from driftscope_probes.nightly.request import DEFAULT_FILE, MOST_MINUTES, NightlyConfig, read_config
from driftscope_probes.nightly.run import run_nightly
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.experiments.nightly.html import PAGES
from driftscope_service.experiments.nightly.terminal import print_night
from driftscope_service.terminal.commands import (
    COULD_NOT_RUN,
    Json,
    print_json,
    print_result,
    progress_bar,
)


@kept
def nightly(
    keep: Keep,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file. Default: the one shipped for a CPU.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Folder of all nights. Default: $DRIFTSCOPE_HOME/nightly.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, max=MOST_MINUTES, help="Minutes, instead of the file's."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a night that was interrupted.")] = True,
    list_: Annotated[
        bool, typer.Option("--list", help="Check the file, print its items, run nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run every check of a file and compare with what it expects and with the last night.

    Exits 0 as expected, 1 something changed, 2 something could not be run.
    """
    try:
        asked = read_config(config or DEFAULT_FILE)
        if list_:
            _print_items(asked, json_)
            return
        with progress_bar() as show:
            report = run_nightly(
                asked,
                history or home() / "nightly",
                show,
                None if budget is None else 60 * budget,
                resume=resume,
                pages=PAGES,
            )
    except ProbeError as error:
        print(f"driftscope: {error}", file=sys.stderr)
        raise typer.Exit(COULD_NOT_RUN) from error
    except OSError as error:
        # A full or missing disk says nothing about verdicts, but exit code 1 would.
        print(
            f"driftscope: {error}\nWhat to do: make the folder of the history writable and start "
            "again; what is finished is kept.",
            file=sys.stderr,
        )
        raise typer.Exit(COULD_NOT_RUN) from error
    result = report.to_dict()
    print_result(result, json_, lambda _, console: print_night(report, console))
    keep(result)
    raise typer.Exit(report.exit_code)


def _print_items(config: NightlyConfig, json_: bool) -> None:
    rows = [{"id": item.id, "kind": item.kind, "expected": item.expected} for item in config.items]
    if json_:
        return print_json({"config": config.name, "items": rows})
    for row in rows:
        print(f"{row['expected']:<14}{row['id']}")


def mount(app: typer.Typer, _probe: typer.Typer) -> None:
    app.command()(nightly)
