"""`driftscope runs list|finish`: the training runs of a service, over its API."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from driftscope_client.run_name import RUN_NAME, RUN_VARIABLE
from driftscope_probes.errors import RequestError
from driftscope_service.cli.service_call import DEFAULT_URL, Url, call

app = typer.Typer(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer.")]
COLUMNS = ("run", "state", "model", "steps", "last step", "received")


@app.callback()
def _runs() -> None:
    """Training runs of a running service."""


@app.command("list")
def list_runs(
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: AsJson = False,
) -> None:
    """The runs with the latest activity."""
    page = call("GET", url, "/v1/runs", {"limit": limit}).json()
    if as_json:
        return _print_json(page)
    table = Table(*COLUMNS)
    for run in page["runs"]:
        last = "" if run["last_step"] is None else f"{run['last_step']}"
        counts = (f"{run['steps']}", last, run["last_step_at"] or "")
        table.add_row(run["run"], run["state"], run["model"] or "", *counts)
    Console().print(table)


@app.command()
def finish(
    run: Annotated[str, typer.Argument(envvar=RUN_VARIABLE, help="Name of the run.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say that a run has ended, so that nobody is alerted that its steps stopped.

    A later step opens it again.
    """
    if not RUN_NAME.fullmatch(run):
        raise RequestError(
            f"the run name {run!r} is not accepted.",
            remedy="use letters, digits, '.', '_' and '-', at most 128.",
        )
    path = f"/v1/runs/{run}"
    answer = call("PUT", url, path, body=json.dumps({"state": "finished"})).json()
    if as_json:
        return _print_json(answer)
    typer.echo(f"{run}  finished  {answer['steps']} steps")


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))
