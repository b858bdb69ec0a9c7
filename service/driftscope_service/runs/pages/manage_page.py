"""What people change about a run from its page: tags, note, the pin of a baseline; and deletion,
which asks once more on a page of its own.

A deletion of a run wants its name typed: a click is soon done, and nothing brings a run back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth.audit import CurrentWho
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.pages import navigation
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.runs.api.removal import AttemptNumber
from driftscope_service.runs.api.runs import mark
from driftscope_service.runs.api.schemas import RunFields, RunName, StepNumber
from driftscope_service.runs.current import CurrentService, RunsService, known_run
from driftscope_service.runs.ingest.removal import delete_run, delete_step
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import StepRepository

router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)
#: A note of 4,000 characters, of which each may take twelve bytes in a form, and sixteen tags.
MAX_FORM_BYTES: Final = 65_536


async def _form(request: Request) -> Mapping[str, str]:
    """The first value of each field."""
    body = (await request.body())[:MAX_FORM_BYTES].decode("utf-8", "replace")
    return {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}


@router.post("/{run}/marks")
async def mark_run(request: Request, run: RunName, service: CurrentService) -> Response:
    """`tags`, parted by spaces or commas, and `note`."""
    form = await _form(request)
    given: dict[str, Any] = {}
    if "tags" in form:
        given["tags"] = form["tags"].replace(",", " ").split()
    if "note" in form:
        # A browser ends the lines of a text area with both.
        given["note"] = form["note"].replace("\r\n", "\n").strip()
    await run_in_threadpool(_mark, service, run, _checked(given))
    return RedirectResponse(f"{navigation.run_page(run)}#marks", 303)


@router.post("/{run}/pin")
async def pin_run(request: Request, run: RunName, service: CurrentService) -> Response:
    """`pinned`: yes or no."""
    form = await _form(request)
    await run_in_threadpool(_mark, service, run, {"pinned": form.get("pinned") == "yes"})
    return RedirectResponse(f"{navigation.run_page(run)}#marks", 303)


def _checked(given: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return RunFields(**given).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidField(
            f"/{name}",
            f"the field {name} is not accepted: {first['msg']}",
            remedy="go back and change it: at most 16 tags of 64 characters, and a note of 4,000.",
        ) from None


def _mark(service: RunsService, run: str, marks: Mapping[str, Any]) -> None:
    with service.database.write() as connection:
        found = known_run(connection, run)
        mark(connection, found, marks)


@router.get("/{run}/delete")
def ask_to_delete_run(request: Request, run: RunName, service: CurrentService) -> Response:
    return _ask(request, _required(service, run), wrong=None)


@router.post("/{run}/delete")
async def delete_run_from_page(
    request: Request, run: RunName, service: CurrentService, who: CurrentWho
) -> Response:
    form = await _form(request)
    if form.get("name", "").strip() != run:
        found = await run_in_threadpool(_required, service, run)
        return _ask(request, found, wrong="The name is not that of the run; nothing was deleted.")
    if await delete_run(service.intake, run, who) is None:
        raise not_found("run", run)
    return RedirectResponse("/runs", 303)


def _required(service: RunsService, run: str) -> Run:
    with service.database.read() as connection:
        found = known_run(connection, run)
    return found


def _ask(request: Request, run: Run, *, wrong: str | None) -> Response:
    return page(
        request,
        "runs/pages/templates/delete",
        title=f"Delete {run.name}",
        section="runs",
        crumbs=[Crumb("Runs", "/runs"), Crumb(run.name, navigation.run_page(run.name))],
        status=200 if wrong is None else 422,
        run=run,
        step=None,
        wrong=wrong,
        action=f"{navigation.run_page(run.name)}/delete",
        back=navigation.run_page(run.name),
    )


@router.get("/{run}/steps/{step}/delete")
def ask_to_delete_step(
    request: Request,
    run: RunName,
    step: StepNumber,
    service: CurrentService,
    attempt: AttemptNumber = None,
) -> Response:
    with service.database.read() as connection:
        found = known_run(connection, run)
        stored = StepRepository(connection).get(run, step, attempt=attempt)
    if attempt is None:
        if stored is None:
            raise not_found("complete step", step, f"run {run!r}")
        # Outside the series a step is deleted by the name of its attempt alone.
        attempt = None if stored.superseded_by is None else stored.attempt
    path = navigation.step_page(run, step)
    of_run = Crumb(run, navigation.run_page(run))
    return page(
        request,
        "runs/pages/templates/delete",
        title=f"Delete step {step:,} of {run}",
        section="runs",
        crumbs=[Crumb("Runs", "/runs"), of_run, Crumb(f"Step {step:,}", path)],
        run=found,
        step=step,
        attempt=attempt,
        wrong=None,
        action=navigation.with_query(f"{path}/delete", attempt=attempt),
        back=path,
    )


@router.post("/{run}/steps/{step}/delete")
async def delete_step_from_page(
    run: RunName,
    step: StepNumber,
    service: CurrentService,
    who: CurrentWho,
    attempt: AttemptNumber = None,
) -> Response:
    if await delete_step(service.intake, run, step, attempt, who) is None:
        raise not_found("step", step, f"run {run!r}")
    return RedirectResponse(navigation.run_page(run), 303)
