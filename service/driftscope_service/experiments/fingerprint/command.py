"""`driftscope fingerprint`: how this machine sums, and what another does differently.

The reading is done in a process of its own. Exit codes of `diff`: 0 equal, 1 they differ, 2 a file
is no fingerprint.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.durable_file import write_whole
from driftscope_probes.errors import RequestError
from driftscope_probes.fingerprint.difference import difference
from driftscope_probes.fingerprint.report import MOST_BYTES, FingerprintReport
from driftscope_probes.fingerprint.request import ARCHITECTURES, HOST, FingerprintRequest
from driftscope_service.experiments.fingerprint.terminal import (
    print_difference,
    print_fingerprint,
)
from driftscope_service.terminal.commands import Json, checked, json_text, print_json, run_child
from driftscope_service.terminal.exits import FOUND

#: Of a file given to `diff`: no report is larger, but one may have been written with indents.
MOST_READ: Final = 10 * MOST_BYTES

app = typer.Typer(invoke_without_command=True)


@app.callback()
def fingerprint(
    context: typer.Context,
    device: Annotated[
        str, typer.Option(help=f"cpu, or simulated:NAME; NAME: {', '.join(ARCHITECTURES)}.")
    ] = HOST,
    out: Annotated[Path | None, typer.Option(help="Write it to this file as JSON.")] = None,
    json_: Json = False,
) -> None:
    """Read how this machine sums products: order, accumulator, rounding, and how far functions err.

    Two files of different machines are compared by driftscope fingerprint diff A B.
    """
    if context.invoked_subcommand is not None:
        return
    report = FingerprintReport.read(_measured({"device": device}))
    if out is not None:
        _write(out, report)
    if json_:
        print_json(report.to_dict())
    else:
        print_fingerprint(report, Console())


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A file of driftscope fingerprint --out.")],
    after: Annotated[Path, typer.Argument(help="Another.")],
    json_: Json = False,
) -> None:
    """Say what two machines do differently, by mechanism; exit with 1 where they do."""
    found = difference(_stored(before), _stored(after))
    if json_:
        print_json(found.to_dict())
    else:
        print_difference(found, Console())
    if not found.equal:
        raise typer.Exit(FOUND)


def _measured(values: Mapping[str, Any]) -> dict[str, Any]:
    request = checked(FingerprintRequest, values, command="fingerprint")
    asked = {"kind": "fingerprint", "request": request.model_dump(mode="json")}
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        return run_child("driftscope_probes.run_probe", asked, Path(folder), explain_probe_crash)


def _write(path: Path, report: FingerprintReport) -> None:
    try:
        write_whole(path, json_text(report.to_dict()) + "\n")
    except OSError as error:
        raise RequestError(
            f"{path} cannot be written: {error.strerror}.", remedy="give --out another path."
        ) from error


def _why(error: ValueError | TypeError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "it is not JSON"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return str(error).splitlines()[0]


def _stored(path: Path) -> FingerprintReport:
    """Raises RequestError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_READ + 1)
        if len(content) > MOST_READ:
            raise ValueError(f"it has more than {MOST_READ} bytes")
        return FingerprintReport.read(json.loads(content))
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read: {error.strerror}.",
            remedy="give two files that driftscope fingerprint --out wrote.",
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(
            f"{path} is not a fingerprint: {_why(error)}.",
            remedy="give two files that driftscope fingerprint --out wrote.",
        ) from error
