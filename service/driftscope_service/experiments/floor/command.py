"""`driftscope floor`: what rounding alone explains for a model here, measured, kept and listed.

The work is done in processes of its own. What it finds is used by every later comparison.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.durable_file import write_whole
from driftscope_probes.errors import RequestError
from driftscope_probes.floor.report import FloorReport
from driftscope_probes.floor.request import FloorRequest
from driftscope_probes.floor.store import (
    FOLDER,
    FloorStore,
    StoredFloor,
    default_folder,
    stored_floors,
)
from driftscope_service.experiments.floor.terminal import print_floor, print_stored
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.terminal.commands import (
    Json,
    checked,
    fields,
    print_json,
    request_options,
    run_child,
)


@request_options(
    fields(
        FloorRequest,
        {
            "dtypes": "Comma-separated; each is measured against each.",
            "prompts": "How many of the shipped prompts.",
            "max_tokens": "Response tokens per prompt.",
            "fp16_prompts": "How many of them in fp16; default: half on a CPU, which emulates it.",
            "batch_size": "Sequences scored together.",
            "seed": "",
            "threads": "Default: every core.",
        },
    ),
)
@kept
def floor(
    values: dict[str, Any],
    keep: Keep,
    model: Annotated[
        str | None, typer.Option(help="Catalogue name, local folder or Hub id.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show what is stored, run nothing.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write the floors to this file, for another machine.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Take over the floors of an exported file.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Of the service.", show_default="driftscope-data")
    ] = None,
    json_: Json = False,
) -> None:
    """Measure how far rounding alone moves this model's log-probabilities, dtype by dtype.

    Later verdicts on this model are read against it: analyze, the service, the paired probe.
    """
    store = FloorStore(default_folder() if data_dir is None else data_dir / FOLDER)
    if import_ is not None:
        store.put(_imported(import_))
    if list_ or import_ is not None:
        shown = [each for each in store.all() if model is None or each.model == model]
        if export is not None:
            _export(shown, export)
        return _show_stored(shown, store, json_)
    if model is None:
        raise RequestError(
            "no model was named.", remedy="give --model NAME, or --list for what is stored."
        )
    request = request_of({**values, "model": model})
    report = FloorReport.read(_measured(request, store))
    if export is not None:
        _export(stored_floors(report), export)
    if json_:
        print_json(report.to_dict())
    else:
        print_floor(report, Console(), store.folder)
    keep(report.to_dict())


def request_of(values: Mapping[str, Any]) -> FloorRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    return checked(FloorRequest, values, command="floor")


def _measured(request: FloorRequest, store: FloorStore) -> dict[str, Any]:
    asked: Mapping[str, Any] = {
        "kind": "floor",
        "request": request.model_dump(mode="json"),
        "floors": str(store.folder.absolute()),
    }
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        return run_child("driftscope_probes.run_probe", asked, Path(folder), explain_probe_crash)


def _show_stored(floors: Sequence[StoredFloor], store: FloorStore, json_: bool) -> None:
    if json_:
        print_json({"floors": [each.to_dict() for each in floors]})
    else:
        print_stored(floors, Console(), store.folder)


def _export(floors: Sequence[StoredFloor], path: Path) -> None:
    content = {"floors": [each.to_dict() for each in floors]}
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1)
    try:
        write_whole(path, text + "\n")
    except OSError as error:
        raise RequestError(
            f"{path} cannot be written: {error.strerror}.", remedy="give --export another path."
        ) from error


def _imported(path: Path) -> list[StoredFloor]:
    try:
        content = json.loads(path.read_bytes())
        return [StoredFloor.read(each) for each in content["floors"]]
    except (OSError, ValueError, ValidationError, TypeError, KeyError) as error:
        raise RequestError(
            f"{path} holds no exported floors: {str(error).splitlines()[0]}.",
            remedy="give a file that driftscope floor --export wrote.",
        ) from error


def mount(app: typer.Typer, _probe: typer.Typer) -> None:
    app.command()(floor)
