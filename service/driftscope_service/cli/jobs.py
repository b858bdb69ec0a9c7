"""`driftscope jobs list|show|logs|cancel`: the jobs of a running service, over its API."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from driftscope_probes.errors import ProbeError
from driftscope_service.auth.key import parse_key

KEY_VARIABLE = "DRIFTSCOPE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8321"
#: The service answers from its database; a minute would only hide that it hangs.
TIMEOUT_S = 15.0

app = typer.Typer(no_args_is_help=True)

Url = Annotated[str, typer.Option("--url", envvar="DRIFTSCOPE_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer.")]
JobId = Annotated[str, typer.Argument(help="Identifier of the job.")]


class ApiError(ProbeError):
    """The service refused a request, or cannot be reached."""


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
    page = _call("GET", url, "/v1/jobs", query).json()
    if as_json:
        return _print_json(page)
    table = Table("job", "kind", "state", "model", "progress", "created")
    for job in page["jobs"]:
        names = (job["id"], job["kind"], job["state"], job["model"] or "")
        table.add_row(*names, _progress(job), job["created_at"])
    Console().print(table)


@app.command()
def show(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """State, progress and outcome of one job."""
    _print_job(_call("GET", url, f"/v1/jobs/{job_id}").json(), url, as_json)


@app.command()
def logs(job_id: JobId, url: Url = DEFAULT_URL) -> None:
    """What the probe and its engines wrote."""
    typer.echo(_call("GET", url, f"/v1/jobs/{job_id}/logs").text, nl=False)


@app.command()
def cancel(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job."""
    _print_job(_call("POST", url, f"/v1/jobs/{job_id}/cancel").json(), url, as_json)


def _call(
    method: str, url: str, path: str, query: Mapping[str, str | int] | None = None
) -> httpx.Response:
    try:
        response = httpx.request(
            method,
            url.rstrip("/") + path,
            params=query,
            headers=_key_header(),
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ApiError(
            f"the service at {url} cannot be reached: {error}.",
            remedy="start it with `driftscope serve`, or give its address with --url.",
        ) from None
    if response.is_error:
        raise _refusal(response)
    return response


def _key_header() -> dict[str, str]:
    """From the environment only: an option would stand in the shell's history."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return {}
    if parse_key(key) is None:
        raise ApiError(
            f"{KEY_VARIABLE} holds no API key.",
            remedy="set it to what `driftscope keys create` printed, or unset it.",
        )
    return {"Authorization": f"Bearer {key}"}


def _refusal(response: httpx.Response) -> ApiError:
    if response.headers.get("content-type") != "application/problem+json":
        return ApiError(
            f"{response.url} answered {response.status_code}.",
            remedy="check that --url is the address of a driftscope service.",
        )
    problem = response.json()
    remedy = problem.get("remedy") or f"see {response.url.join(problem['type'])}"
    return ApiError(f"{problem['title']}: {problem['detail']}.", remedy=f"{remedy}")


def _print_job(job: dict[str, Any], url: str, as_json: bool) -> None:
    if as_json:
        return _print_json(job)
    subject = " ".join(filter(None, (job["kind"], job["model"])))
    typer.echo(f"{job['id']}  {job['state']}  {subject}  {_progress(job)}")
    if job["error"]:
        typer.echo(f"{job['error']['message']}\nWhat to do: {job['error']['remedy']}")
    if job["links"]["report_html"]:
        typer.echo(f"report: {url.rstrip('/')}{job['links']['report_html']}")


def _progress(job: dict[str, Any]) -> str:
    progress = job["progress"]
    return f"{progress['fraction']:.0%} {progress['stage']} {progress['detail']}".rstrip()


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))
