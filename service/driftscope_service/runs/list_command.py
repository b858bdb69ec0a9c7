"""`driftscope runs …`: the runs of a running service, found, marked, ended and deleted."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Final

import typer

from driftscope_client.errors import RUN_NAME, RUN_VARIABLE
from driftscope_probes.errors import RequestError
from driftscope_probes.plural import counted
from driftscope_probes.verdicts import COMPARISON_VERDICTS
from driftscope_service.auth.service_call import DEFAULT_URL, Url, call
from driftscope_service.numbers.metric_words import number
from driftscope_service.terminal.listing import print_list

app = typer.Typer(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer.")]
Name = Annotated[str, typer.Argument(envvar=RUN_VARIABLE, help="Name of the run.")]
COLUMNS: Final = (
    *("run", "state", "verdict", "cause", "model", "steps", "last step", "received", "tags"),
    "baseline",
)
_VERDICTS: Final = ", ".join(COMPARISON_VERDICTS)


@app.callback()
def _runs() -> None:
    """Training runs of a running service."""


@app.command("list")
def list_runs(
    text: Annotated[
        str | None,
        typer.Option(
            "--search", help="Words in the name, the note, a tag or a label: all of them."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    framework: Annotated[str | None, typer.Option(help="Of this framework.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Of this engine; vllm finds vllm 0.32.0 too.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the rollout or the trainer.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="running, resumed, finished or stale; repeatable: any.")
    ] = None,
    verdict: Annotated[
        list[str] | None, typer.Option(help=f"Of the last step: {_VERDICTS}; repeatable: any.")
    ] = None,
    cause: Annotated[str | None, typer.Option(help="Name of the first cause.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Repeatable: every one of them.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Active on this date or at this time, or later; UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Last active on this date or at this time, or before.")
    ] = None,
    sort: Annotated[str, typer.Option(help="activity, worst, name or created.")] = "activity",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="What the command said after an earlier page.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Runs, those with the latest activity first."""
    asked: dict[str, str | int | list[str] | None] = {
        **{"text": text, "model": model, "framework": framework, "engine": engine},
        **{"dtype": dtype, "state": state, "verdict": verdict, "cause": cause, "tag": tag},
        **{"since": since, "until": until, "sort": sort, "limit": limit, "cursor": cursor},
    }
    query = {name: value for name, value in asked.items() if value}
    page = call("GET", url, "/v1/runs", query).json()
    if as_json:
        return _print_json(page)
    print_list(COLUMNS, map(_row, page["runs"]))
    shown, matches = len(page["runs"]), page["matches"]
    if page["next_cursor"] is not None:
        # Beside the list: what reads the list gets runs alone.
        more = f"{shown} of {matches} runs; more: --cursor {page['next_cursor']}"
        print(more, file=sys.stderr)


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    told, held = run["verdict"] or {}, run["baseline"]
    last = "" if run["last_step"] is None else f"{run['last_step']}"
    if run["pinned"]:
        baseline = "pinned"
    elif held is None or held["abs_diff_mean_times"] is None:
        baseline = ""
    else:
        baseline = f"mean |Δ| {number(held['abs_diff_mean_times'])} times {held['run']}"
    return (
        *(run["run"], run["state"], told.get("verdict") or "", told.get("cause") or ""),
        *(run["model"] or "", f"{run['steps']}", last, run["last_step_at"] or ""),
        *(" ".join(run["tags"]), baseline),
    )


@app.command()
def finish(run: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Say that a run has ended, so that nobody is alerted that its steps stopped.

    A later step opens it again.
    """
    answer = _put(run, url, {"state": "finished"})
    _tell(answer, as_json, f"{run}  finished  {counted(answer['steps'], 'step')}")


@app.command()
def tag(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    tags: Annotated[list[str], typer.Argument(help="Without spaces and commas.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Add tags to a run, beside those that it has."""
    known = call("GET", url, _path(run)).json()["tags"]
    kept = [one for one in known if one not in tags]
    answer = _put(run, url, {"tags": kept if remove else [*kept, *tags]})
    _tell(answer, as_json, f"{run}  tags: {' '.join(answer['tags']) or 'none'}")


@app.command()
def note(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    text: Annotated[str, typer.Argument(help='In place of the note that it has; "": none.')],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Put a note on a run. Its words find the run."""
    answer = _put(run, url, {"note": text or None})
    _tell(answer, as_json, f"{run}  note: {answer['note'] or 'none'}")


@app.command()
def pin(run: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Make a run the baseline that the other runs of its model are compared with."""
    answer = _put(run, url, {"pinned": True})
    _tell(answer, as_json, f"{run}  is the baseline of {answer['model']}")


@app.command()
def unpin(run: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Pin a run no longer; of its model, the run pinned before it is the baseline."""
    answer = _put(run, url, {"pinned": False})
    _tell(answer, as_json, f"{run}  is no baseline")


@app.command()
def delete(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="This step alone; default: the whole run.")
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="The step as this attempt has it. Default: series.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Nothing brings it back, and so be it.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete a run, or a step of it, with its tokens on disk. Needs a key with the scope admin."""
    path, what = _path(run), f"run {run}"
    if attempt is not None and step is None:
        raise RequestError(
            "--attempt goes with a step, and none is given.", remedy="give --step too."
        )
    if step is not None:
        path, what = f"{path}/steps/{step}", f"step {step} of run {run}"
    if not yes:
        found = call("GET", url, path).json()
        size = f" with {counted(found['steps'], 'step')}" if step is None else ""
        raise RequestError(
            f"{what}{size} would be deleted for good; nothing was done.",
            remedy="say --yes if that is meant.",
        )
    gone = call("DELETE", url, path, None if attempt is None else {"attempt": attempt}).json()
    _tell(
        gone,
        as_json,
        f"deleted {what}: {counted(gone['steps'], 'step')}, {counted(gone['files'], 'file')}, "
        f"{gone['freed_bytes']} bytes",
    )


def _put(run: str, url: str, fields: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = call("PUT", url, _path(run), body=json.dumps(fields)).json()
    return answer


def _path(run: str) -> str:
    if not RUN_NAME.fullmatch(run):
        raise RequestError(
            f"the run name {run!r} is not accepted.",
            remedy="use letters, digits, '.', '_' and '-', at most 128.",
        )
    return f"/v1/runs/{run}"


def _tell(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    if as_json:
        return _print_json(answer)
    typer.echo(sentence)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))
