"""`driftscope model list` and `driftscope model fetch NAME`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from driftscope_probes.errors import RequestError
from driftscope_probes.models.catalogue import CATALOGUE
from driftscope_probes.models.fetch import fetch as fetch_model
from driftscope_probes.models.safetensors_file import MasterDtype
from driftscope_service.terminal.commands import Json, progress_bar
from driftscope_service.terminal.listing import print_list

app = typer.Typer(no_args_is_help=True, help="The demo models, and models from the Hub.")

COLUMNS = ("name", "cached", "MB", "what it is", "licence and source")
MASTER_DTYPES: tuple[MasterDtype, ...] = ("bf16", "fp32")


@app.command("list")
def list_models(
    json_: Json = False,
) -> None:
    """The models that driftscope can make by itself."""
    rows = [model.to_dict() for model in CATALOGUE]
    if json_:
        print(json.dumps({"models": rows}))
        return
    print_list(COLUMNS, map(_cells, rows))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Catalogue name or Hub id.")],
    master_dtype: Annotated[
        str | None, typer.Option(help="bf16 or fp32, of a catalogue model.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Build it again.")] = False,
    json_: Json = False,
) -> None:
    """Make a model ready for use: build or download it once, and say where it lies."""
    with progress_bar() as show:
        model = fetch_model(
            name,
            master_dtype=_master_dtype(master_dtype),
            force=force,
            progress=show,
        )
    print(json.dumps(model.to_dict()) if json_ else f"{model.name}: {model.path}")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['size_bytes'] / 1e6:.0f}"
    origin = f"{row['licence']}; {row['source']}"
    return (row["name"], "yes" if row["cached"] else "no", size, row["description"], origin)


def _master_dtype(name: str | None) -> MasterDtype | None:
    for dtype in MASTER_DTYPES:
        if name == dtype:
            return dtype
    if name is None:
        return None
    raise RequestError(
        f"unknown master dtype {name!r}.", remedy=f"use {' or '.join(MASTER_DTYPES)}."
    )
