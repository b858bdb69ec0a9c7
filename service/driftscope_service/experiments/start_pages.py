"""/probes/new and /probes/new/{kind}: start a probe from a form that its request makes.

Without scripts a button says what the form comes to; with them that stands beside it all along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from driftscope_service.auth.access import why_not
from driftscope_service.auth.audit import who
from driftscope_service.auth.key import Scope
from driftscope_service.experiments.command_words import same_request
from driftscope_service.experiments.form import Typed, asked_of, form_of, typed_of
from driftscope_service.experiments.kind import CurrentService, ExperimentsService, Kind
from driftscope_service.experiments.route import start_job
from driftscope_service.http.errors import InvalidField, ServiceError, not_found
from driftscope_service.jobs.job import JobState
from driftscope_service.jobs.store import JobRepository
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.settings import PREFIX, Settings
from driftscope_service.store.tables import ID_LENGTH

router = APIRouter(prefix="/probes/new", include_in_schema=False, route_class=PageRoute)
#: The job that the form began with, as a hidden control.
FROM: Final = "from"
UNPROCESSABLE: Final = 422
#: A field that a link fills in: the name of a model or a run.
MOST_FILLED: Final = 200
#: Quotas that every kind has.
_OF_ALL: Final = ("max_queued_jobs", "max_concurrent_probes", "job_time_limit_seconds")


@dataclass(frozen=True, slots=True)
class Quota:
    words: str
    value: str
    variable: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A form as it came in, and what it asks for if it is a request."""

    typed: Typed
    request: BaseModel | None
    faults: tuple[tuple[Sequence[str | int], str], ...] = ()
    refused: ServiceError | None = None  # of no field: the queue is full

    @property
    def acceptable(self) -> bool:
        return not self.faults and self.refused is None


@router.get("")
def choose_kind(request: Request, service: CurrentService) -> Response:
    kinds = sorted(service.kinds.values(), key=lambda kind: not kind.of_a_model)
    return page(
        request,
        "experiments/templates/new",
        title="Start a probe",
        section="probes",
        crumbs=[Crumb("Probes", "/probes")],
        kinds=kinds,
    )


@router.get("/{kind_name}")
def start_form(
    request: Request,
    kind_name: str,
    service: CurrentService,
    from_: Annotated[str | None, Query(alias=FROM, max_length=ID_LENGTH)] = None,
    model: Annotated[str | None, Query(max_length=MOST_FILLED)] = None,
    run: Annotated[str | None, Query(max_length=MOST_FILLED)] = None,
    step: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    kind = _kind(service, kind_name)
    before = None if from_ is None else _request_of(service, kind, from_)
    typed = typed_of(kind.request, before or {})
    if before is None and kind.of_a_model:
        typed["model"] = service.settings.model_names[:1]
    filled = {"model": model, "run": run, "step": step}
    typed |= {name: [str(v)] for name, v in filled.items() if v is not None and name in typed}
    return _page(request, service, kind, _check(kind, typed, service), job_id=from_)


@router.post("/{kind_name}/check")
async def check_form(request: Request, kind_name: str, service: CurrentService) -> Response:
    typed = await _typed(request)
    return await run_in_threadpool(_checked_page, request, kind_name, typed, service)


@router.post("/{kind_name}")
async def start_from_form(request: Request, kind_name: str, service: CurrentService) -> Response:
    typed = await _typed(request)
    return await run_in_threadpool(_started, request, kind_name, typed, service)


def _checked_page(
    request: Request, kind_name: str, typed: Typed, service: ExperimentsService
) -> Response:
    kind = _kind(service, kind_name)
    return _page(request, service, kind, _check(kind, typed, service), job_id=_from(typed))


def _started(
    request: Request, kind_name: str, typed: Typed, service: ExperimentsService
) -> Response:
    kind = _kind(service, kind_name)
    checked = _check(kind, typed, service)
    if checked.acceptable:
        try:
            job = start_job(kind, checked.request, service, who(request))
            return RedirectResponse(f"/jobs/{job.id}", 303)
        except ServiceError as refused:
            checked = Checked(typed, checked.request, refused=refused)
    status = UNPROCESSABLE if checked.refused is None else checked.refused.kind.status
    return _page(request, service, kind, checked, job_id=_from(typed), status=status)


def _kind(service: ExperimentsService, name: str) -> Kind:
    if name not in service.kinds:
        raise not_found("kind of probe", name)
    return service.kinds[name]


async def _typed(request: Request) -> Typed:
    body = (await request.body()).decode("utf-8", "replace")
    return parse_qs(body, keep_blank_values=True)


def _from(typed: Typed) -> str | None:
    return (typed.get(FROM) or [""])[0][:ID_LENGTH] or None


def _request_of(service: ExperimentsService, kind: Kind, job_id: str) -> Mapping[str, Any]:
    """What a job of this kind asked for."""
    with service.database.read() as connection:
        jobs = JobRepository(connection)
        job = jobs.get(job_id)
        if job is None or job.kind != kind.name:
            raise not_found(f"job of kind {kind.name}", job_id)
        asked = jobs.request_of(job_id).get("request", {})
    return asked if isinstance(asked, Mapping) else {}


def _check(kind: Kind, typed: Typed, service: ExperimentsService) -> Checked:
    """As POST /v1/probes/{kind} would, quotas of the operator included."""
    try:
        asked = asked_of(kind.request, typed)
        request = None if kind.request is None else kind.request.model_validate(asked)
        kind.job(request, service.settings)
    except ValidationError as error:
        faults = [(fault["loc"], _plain(fault["msg"])) for fault in error.errors()]
        return Checked(typed, None, tuple(faults))
    except InvalidField as error:
        pointer = error.extras["errors"][0]["pointer"].strip("/")
        place = tuple(pointer.split("/")) if pointer else ()
        remedy = error.extras["remedy"]
        return Checked(typed, None, ((place, f"{error.detail}: {remedy}"),))
    return Checked(typed, request)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


def _page(
    request: Request,
    service: ExperimentsService,
    kind: Kind,
    checked: Checked,
    *,
    job_id: str | None,
    status: int = 200,
) -> Response:
    settings = service.settings
    was = None
    if job_id is not None:
        was = typed_of(kind.request, _request_of(service, kind, job_id))
    offered = {"model": settings.model_names, "engine_endpoint": sorted(settings.engine_endpoints)}
    form = form_of(kind.request, checked.typed, offered, was=was, faults=checked.faults)
    with service.database.read() as connection:
        counts = JobRepository(connection).counts()
    same = None
    if checked.acceptable:
        url = str(request.base_url)
        same = same_request(kind, checked.request, url, key=settings.keys_required)
    return page(
        request,
        "experiments/templates/start",
        title=f"Start a {kind.label.lower()}",
        section="probes",
        crumbs=[Crumb("Probes", "/probes"), Crumb("Start", "/probes/new")],
        status=status,
        kind=kind,
        form=form,
        job_id=job_id,
        same=same,
        refused=checked.refused,
        why_not=why_not(request, Scope.PROBE),
        quotas=quotas(kind, settings),
        waiting=counts[JobState.QUEUED],
        running=counts[JobState.RUNNING],
    )


def quotas(kind: Kind, settings: Settings) -> list[Quota]:
    """What the operator allows a request of this kind, and every job."""
    return [_quota(name, settings) for name in (*kind.quotas, *_OF_ALL)]


def _quota(name: str, settings: Settings) -> Quota:
    # The setting that may be left open says so by the number that holds in its place.
    value = settings.threads_allowed if name == "max_threads" else getattr(settings, name)
    words = (Settings.model_fields[name].description or name).removesuffix(" at most")
    return Quota(
        words, f"{value:,}" if isinstance(value, int) else f"{value:,g}", PREFIX + name.upper()
    )
