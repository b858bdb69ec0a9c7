"""`driftscope jobs list|show|logs|cancel`: the jobs of a running service, over its API."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from driftscope_service.auth.service_call import DEFAULT_URL, Url, call
from driftscope_service.terminal.listing import print_list

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("job", "kind", "state", "model", "progress", "created")
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer.")]
JobId = Annotated[str, typer.Argument(help="Identifier of the job.")]


@app.callback()
def _jobs() -> None:
    """Jobs of a running service."""


@app.command("list")
def list_jobs(
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """The newest jobs."""
    query: dict[str, str | int] = {"limit": limit, **({"state": state} if state else {})}
    page = call("GET", url, "/v1/jobs", query).json()
    if as_json:
        return _print_json(page)
    print_list(COLUMNS, map(_row, page["jobs"]))


@app.command()
def show(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """State, progress and outcome of one job."""
    _print_job(call("GET", url, f"/v1/jobs/{job_id}").json(), url, as_json)


@app.command()
def logs(
    job_id: JobId,
    url: Url = DEFAULT_URL,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which attempt; default: the newest.")
    ] = None,
) -> None:
    """What the probe and its engines wrote."""
    query: dict[str, str | int] = {} if attempt is None else {"attempt": attempt}
    typer.echo(call("GET", url, f"/v1/jobs/{job_id}/logs", query).text, nl=False)


@app.command()
def cancel(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job."""
    _print_job(call("POST", url, f"/v1/jobs/{job_id}/cancel").json(), url, as_json)


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    names = (job["id"], job["kind"], job["state"], job["model"] or "")
    return (*names, _progress(job), job["created_at"])


@app.command()
def delete(
    job_id: JobId,
    url: Url = DEFAULT_URL,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Delete a job that has ended and left no report, with its log."""
    if not yes:
        typer.confirm(f"Delete {job_id} and its log?", abort=True)
    call("DELETE", url, f"/v1/jobs/{job_id}")
    typer.echo(f"{job_id} is deleted.")


def _print_job(job: dict[str, Any], url: str, as_json: bool) -> None:
    if as_json:
        return _print_json(job)
    subject = " ".join(filter(None, (job["kind"], job["model"])))
    typer.echo(f"{job['id']}  {job['state']}  {subject}  {_progress(job)}")
    if job["error"]:
        typer.echo(f"{job['error']['message']}\nWhat to do: {job['error']['remedy']}")
    if len(job["attempts"]) > 1 or (job["attempts"] and job["state"] == "queued"):
        for attempt in job["attempts"]:
            typer.echo(_attempt_line(attempt))
    if job["links"]["report_html"]:
        typer.echo(f"report: {url.rstrip('/')}{job['links']['report_html']}")


def _attempt_line(attempt: dict[str, Any]) -> str:
    outcome = attempt["outcome"] or "running"
    where = f"{attempt['host']}, {attempt['executor']}"
    reason = f": {attempt['reason']['message']}" if attempt["reason"] else ""
    return f"attempt {attempt['attempt']}  {outcome}  {where}{reason}"


def _progress(job: dict[str, Any]) -> str:
    progress = job["progress"]
    return f"{progress['fraction']:.0%} {progress['stage']} {progress['detail']}".rstrip()


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))
