"""`driftscope reports list|add|delete`: stored reports of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from driftscope_probes.errors import RequestError
from driftscope_service.auth.service_call import DEFAULT_URL, Url, call
from driftscope_service.experiments.keeping import DataDir, Keep
from driftscope_service.terminal.commands import Json, print_json
from driftscope_service.terminal.listing import print_list

app = typer.Typer(no_args_is_help=True)
COLUMNS = ("report", "kind", "model", "stored", "what it says")
ReportId = Annotated[str, typer.Argument(help="Identifier of the report.")]


@app.callback()
def _reports() -> None:
    """Reports of every kind, in a data folder or a running service."""


@app.command("list")
def list_reports(
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    kind: Annotated[str | None, typer.Option(help="Only reports of this kind.")] = None,
    json_: Json = False,
) -> None:
    """The newest reports of a running service."""
    query: dict[str, str | int] = {"limit": limit, **({"kind": kind} if kind else {})}
    page = call("GET", url, "/v1/reports", query).json()
    if json_:
        return print_json(page)
    print_list(COLUMNS, map(_row, page["reports"]))


def _row(report: dict[str, Any]) -> tuple[str, ...]:
    names = (report["id"], report["kind"], report["model"] or "")
    return (*names, report["created_at"], report["sentence"])


@app.command()
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A report.json, or what --json printed.")],
    data_dir: DataDir = None,
    url: Annotated[
        str | None, typer.Option(help="Hand it to the service at this address instead.")
    ] = None,
) -> None:
    """Put a report that lies in a file where the pages show it."""
    report = _read(file)
    keep = Keep(data_dir=data_dir, url=url, local=context.obj)
    typer.echo(keep.put(report, file.parent))


@app.command()
def delete(
    report_id: ReportId,
    url: Url = DEFAULT_URL,
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Delete the verdicts too that pages show of it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Delete a report, its files and the job that made it."""
    if not yes:
        typer.confirm(f"Delete {report_id}, its files and its job?", abort=True)
    query: dict[str, str | int] = {"verdicts": "true"} if verdicts else {}
    call("DELETE", url, f"/v1/reports/{report_id}", query)
    typer.echo(f"{report_id} is deleted.")


def _read(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{file} cannot be read as JSON: {error}.", remedy="give the report.json of a command."
        ) from error
    if not isinstance(report, dict) or "kind" not in report:
        raise RequestError(
            f"{file} holds no report: there is no kind.",
            remedy="give the report.json of a command, or what it printed with --json.",
        )
    return report
