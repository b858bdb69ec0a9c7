"""/runs/{run}/steps/{step}: the numbers of a step, its tokens in plots, the worst sequences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from driftscope_kernels.on_policy.weights.recorded import of_metadata
from driftscope_probes.lint.report import read_findings
from driftscope_probes.mismatch.oddities import FaultyKinds
from driftscope_probes.plural import counted
from driftscope_service.http.errors import InvalidField, not_found
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.diagnosis_words import read_diagnosis
from driftscope_service.numbers.limit_words import beside
from driftscope_service.numbers.metric_words import grouped
from driftscope_service.pages import navigation
from driftscope_service.pages.diagnosis import diagnosis_view, shown_plot
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.plot_data import Format, evidence_plot, plot_response
from driftscope_service.runs.api.schemas import RunName, StepNumber, step_path
from driftscope_service.runs.current import CurrentService, RunsService
from driftscope_service.runs.pages.coloured_tokens import TokenTexts, TokenWindow, token_window
from driftscope_service.runs.pages.routing_view import routing_plot, routing_view
from driftscope_service.runs.pages.run_state import step_state
from driftscope_service.runs.pages.shown_attempt import ShownAttempt
from driftscope_service.runs.pages.step_view import (
    PROFILE_PLOTS,
    NoTokens,
    PlotName,
    StepView,
    StepViews,
    TokenSource,
    band_of,
    step_plot,
    token_source,
)
from driftscope_service.runs.pages.token_counts import (
    CELL,
    ORDERS,
    OddSequence,
    Order,
    SequenceDifference,
)
from driftscope_service.runs.routing_words import SIGN_LABELS
from driftscope_service.runs.step_words import faulty_kinds, hygiene_sentences
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import Neighbours, StepRepository, StoredStep, neighbours
from driftscope_service.runs.store.token_columns import file_sequence, step_sequence
from driftscope_service.runs.terminal import DROPS_HEALTHY, EFFECTS, drops_healthy
from driftscope_service.runs.weights_words import weights_line

router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Looked:
    """At the tokens: all None where there are none, but for the reason."""

    view: StepView | None
    sequence: int | None
    window: TokenWindow | None
    why_not: str | None


@router.get("/{run}/steps/{step}")
@router.get("/{run}/attempts/{of_attempt}/steps/{step}")
def get_step_page(
    request: Request,
    run: RunName,
    step: StepNumber,
    service: CurrentService,
    asked: ShownAttempt,
    order: Order = "mean",
    sequence: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    at: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> Response:
    stored, of_run, beside = _stored(service, run, step, asked)
    newer = stored.superseded_by is not None and _in_series(service, of_run, step)
    # What is in the series no more is shown as its attempt's, whoever asked for it.
    attempt = stored.attempt if stored.superseded_by is not None else asked
    analysis = json.loads(stored.analysis)
    names = (stored.metadata.get("tokenizer"), stored.metadata.get("model"), of_run.model)
    looked = _look(request, service, stored, names, faulty_kinds(analysis), order, sequence, at)
    diagnosis = read_diagnosis(analysis.get("diagnosis"))
    band = None if looked.view is None else band_of(looked.view, diagnosis)
    chosen = {
        "order": None if order == "mean" else order,
        "sequence": sequence,
    }
    return page(
        request,
        "runs/pages/templates/step",
        title=f"Step {step:,} of {run}",
        section="runs",
        crumbs=[
            Crumb("Runs", "/runs"),
            Crumb(run, navigation.run_page(run)),
            *([] if attempt is None else [_crumb(run, attempt)]),
        ],
        attempt=attempt,
        newer=newer,
        step=stored,
        run=of_run,
        beside=beside,
        path=navigation.step_page(run, step, attempt),
        api=navigation.with_query(step_path(run, step), attempt=attempt),
        diagnosis=diagnosis_view(diagnosis),
        reports=service.reports_of_step(run, step),
        model=offered_model(names[1:], service.settings.model_names),
        band=band,
        values=hygiene_sentences(analysis, every=True),
        notes=analysis.get("notes") or [],
        findings=read_findings(analysis.get("lint") or ()),
        unused={one["name"]: one["why"] for one in analysis.get("unused") or []},
        profiles=[] if looked.view is None else looked.view.profiles.profiles(),
        profile_plots={name: plot for plot, name in PROFILE_PLOTS.items()},
        state=step_state(analysis["crossed_limits"]),
        weights=weights_line(of_metadata(stored.metadata)),
        crossed=analysis["crossed_limits"],
        groups=grouped(analysis["comparison"]),
        presets=analysis["presets"],
        drops_healthy=drops_healthy(analysis),
        drops_healthy_words=DROPS_HEALTHY,
        effects={name: label.replace("\n", " ") for name, label in EFFECTS.items()},
        aliases=analysis["aliases"],
        words=metric_words,
        tiles=_tiles(analysis["comparison"], analysis["crossed_limits"]),
        looked=looked,
        routing=routing_view(analysis.get("routing")),
        sign_labels=SIGN_LABELS,
        order=order,
        orders=ORDERS,
        chosen=chosen,
        cell=CELL,
    )


@router.get("/{run}/steps/{step}/plots/routing.{format_}")
@router.get("/{run}/attempts/{of_attempt}/steps/{step}/plots/routing.{format_}")
def get_routing_plot(
    request: Request,
    run: RunName,
    step: StepNumber,
    format_: Format,
    service: CurrentService,
    attempt: ShownAttempt,
) -> Response:
    """From the stored numbers: it lasts when the tokens are gone."""
    stored, _, _ = _stored(service, run, step, attempt)
    data = routing_plot(json.loads(stored.analysis).get("routing"))
    if data is None:
        raise not_found("pair of routes of step", step, f"run {run!r}")
    return plot_response(request, data, format_, f"{run}-{step}-routing")


@router.get("/{run}/steps/{step}/plots/evidence.{format_}")
@router.get("/{run}/attempts/{of_attempt}/steps/{step}/plots/evidence.{format_}")
def get_evidence_plot(
    request: Request,
    run: RunName,
    step: StepNumber,
    format_: Format,
    service: CurrentService,
    attempt: ShownAttempt,
) -> Response:
    """Of the step's cause; from the stored analysis, so that it outlives the tokens."""
    stored, _, _ = _stored(service, run, step, attempt)
    diagnosis = read_diagnosis(json.loads(stored.analysis).get("diagnosis"))
    plot = None if diagnosis is None else shown_plot(diagnosis)
    if plot is None:
        raise not_found("plot of a cause of step", step, f"run {run!r}")
    return plot_response(request, evidence_plot(plot), format_, f"{run}-{step}-evidence")


@router.get("/{run}/steps/{step}/plots/{plot}.{format_}")
@router.get("/{run}/attempts/{of_attempt}/steps/{step}/plots/{plot}.{format_}")
def get_step_plot(
    request: Request,
    run: RunName,
    step: StepNumber,
    plot: PlotName,
    format_: Format,
    service: CurrentService,
    attempt: ShownAttempt,
) -> Response:
    stored, _, _ = _stored(service, run, step, attempt)
    analysis = json.loads(stored.analysis)
    try:
        source = token_source(service, run, step, attempt)
        view = _views(request).of(source, faulty_kinds(analysis))
    except NoTokens as error:
        raise not_found("plot of the tokens of step", step, f"run {run!r}. {error}") from None
    band = band_of(view, read_diagnosis(analysis.get("diagnosis")))
    data = step_plot(view, plot, band)
    if data is None:
        raise not_found(f"profile by {plot} of step", step, f"run {run!r}: it was not pushed")
    return plot_response(request, data, format_, f"{run}-{step}-{plot}")


def offered_model(names: Sequence[str | None], offered: Sequence[str]) -> str | None:
    """The model of a run as the service can start it: by its name, or that without an owner."""
    for name in names:
        for said in () if name is None else (name, name.rsplit("/", 1)[-1]):
            if said in offered:
                return said
    return None


def _crumb(run: str, attempt: int) -> Crumb:
    return Crumb(f"Attempt {attempt}", navigation.attempt_page(run, attempt))


def _stored(
    service: RunsService, run: str, step: int, attempt: int | None
) -> tuple[StoredStep, Run, Neighbours]:
    """`attempt` None: of the series, or of the latest attempt that had the step."""
    with service.database.read() as connection:
        of_run = RunRepository(connection).get(run)
        stored = StepRepository(connection).get(run, step, attempt=attempt)
        if of_run is None or stored is None:
            of = f"run {run!r}" if attempt is None else f"attempt {attempt} of run {run!r}"
            raise not_found("complete step", step, of)
        within = stored.attempt if stored.superseded_by is not None else attempt
        return stored, of_run, neighbours(connection, of_run.number, step, attempt=within)


def _in_series(service: RunsService, run: Run, step: int) -> bool:
    with service.database.read() as connection:
        found = StepRepository(connection).get(run.name, step)
    return found is not None and found.superseded_by is None


def _look(
    request: Request,
    service: RunsService,
    stored: StoredStep,
    models: tuple[str | None, ...],
    kinds: FaultyKinds,
    order: Order,
    sequence: int | None,
    at: int | None,
) -> Looked:
    try:
        source = token_source(service, stored.run, stored.step, stored.attempt)
        view = _views(request).of(source, kinds)
        # What cannot be compared goes before what differs.
        offered: list[OddSequence | SequenceDifference] = [*view.odd.first, *view.worst.of[order]]
        if sequence is None and offered:
            sequence = offered[0].sequence
        window = None
        if sequence is not None:
            window = _window(source, sequence, _texts(request, service), models, at)
        return Looked(view, sequence, window, None)
    except NoTokens as error:
        return Looked(None, None, None, str(error))


def _window(
    source: TokenSource,
    sequence: int,
    texts: TokenTexts,
    models: tuple[str | None, ...],
    at: int | None,
) -> TokenWindow:
    try:
        tokens = source.read(
            lambda path: file_sequence(path, sequence), lambda step: step_sequence(step, sequence)
        )
    except IndexError:
        raise InvalidField(
            "query/sequence",
            f"the step has {counted(source.place.sequences, 'sequence')}, counted from 0",
            remedy="choose one of the table.",
        ) from None
    return token_window(tokens, texts.of_model(models), at)


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    label: str
    text: str
    unit: str
    beyond: bool


def _tiles(comparison: Mapping[str, Any], crossed: list[dict[str, Any]]) -> list[Tile]:
    beyond = {one["metric"] for one in crossed}
    return [
        Tile(name, shown.label, shown.value, shown.unit, name in beyond)
        for name in metric_words.HEADLINE
        for shown in [beside(name, comparison.get(name))]
    ]


def _views(request: Request) -> StepViews:
    found: StepViews = request.app.state.step_views
    return found


def _texts(request: Request, service: RunsService) -> TokenTexts:
    found: TokenTexts = request.app.state.token_texts
    return found
