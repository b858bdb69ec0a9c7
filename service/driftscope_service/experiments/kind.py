"""A kind of experiment: everything that the service has to know about it.

Its folder assembles one in kind.py, and registry.py names the folder; no other file spells a kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends
from jinja2 import TemplateError
from pydantic import BaseModel
from sqlalchemy import Connection, Table

from driftscope_service.experiments.store import ReportFiles
from driftscope_service.http.current_service import current_service
from driftscope_service.jobs.api import JobsService
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import Metric
from driftscope_service.pages.navigation import Section
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.pages.words import Tone
from driftscope_service.settings import Settings

Report = Mapping[str, Any]
Summary = Mapping[str, Any]
#: The page is self-contained: it may run its own script and reach nothing.
SCRIPT_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: For pages without scripts.
PLAIN_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The page of a report within the site, at /probes/{id}."""

    template: str
    #: What the template shows for the URL's query. Raises InvalidField.
    shown: Callable[[Any, Mapping[str, str]], dict[str, Any]]
    plots: Mapping[str, Callable[[Any], PlotData]]
    parameters: tuple[str, ...] = ()  # of the URL's query; any other is an error


def no_verdicts(
    _summary: Summary, _model: str | None, _report_id: str, _connection: Connection
) -> None:
    """For a kind whose verdicts are only in its reports."""


def no_families(_connection: Connection, _offered: frozenset[str]) -> Iterator[Family]:
    """For a kind that /metrics does not show."""
    return iter(())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a report comes to, as a list of reports shows it first."""

    tone: Tone
    word: str
    cause: str | None = None  # name, of /causes/{name}
    side: str | None = None  # which side carries the error, in a sentence
    remedy: str | None = None


def nothing_brought(_request: Any, _service: ExperimentsService) -> dict[str, Any]:
    """For a kind whose request says all."""
    return {}


def no_answer(_summary: Summary) -> Answer | None:
    """For a kind whose sentence says all."""
    return None


def no_same_work(_report: Report, _connection: Connection) -> str | None:
    """For a kind whose reports are the same only where their content is."""
    return None


@dataclass(frozen=True, slots=True)
class KeptVerdicts:
    """A table that keeps the last verdict on every subject, each with the report it came from."""

    table: Table  # with a column report_id
    words: str  # "last verdicts on kernels, which /kernels and /metrics show"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How the command line asks for what a request says. Options are named after their fields."""

    words: tuple[str, ...]  # ("driftscope", "probe", "paired")
    #: By dotted name of the field: the option, or both switches of a flag ("--a/--b").
    options: Mapping[str, str] = field(default_factory=dict)
    #: Fields that the option of another one sets as well, by dotted names.
    shared: Mapping[str, str] = field(default_factory=dict)
    #: Fields that only a service has, with what to give in their place.
    service_only: Mapping[str, str] = field(default_factory=dict)


@dataclass(
    frozen=True, slots=True, kw_only=True, eq=False
)  # one object each: routes are kept by it
class Kind:
    name: str  # in requests, reports, addresses and the database
    label: str
    package: str  # its folder
    docs: str  # its page in docs/

    # From a request to a process.
    operation: str  # id of POST /v1/probes/{name} in OpenAPI
    description: str
    request: type[BaseModel] | None  # None: the operator's settings say all
    #: `request` and, where a model is given by its folder, `model_path`. Raises InvalidField.
    prepare: Callable[[Any, Settings], dict[str, Any]]
    #: What else of the store goes into a job, fixed when it is accepted. Raises InvalidField.
    brings: Callable[[Any, ExperimentsService], dict[str, Any]] = nothing_brought
    quotas: tuple[str, ...] = ()  # names of the settings that `prepare` holds a request to
    runner: str  # the module whose `run_probe` the process of the probe calls
    smaller: str  # what to ask for where the machine ran out of memory

    # From a report to those who read it.
    report_holds: str
    read: Callable[[Report], Any] = dict  # the typed report, which all below take
    summarise: Callable[[Any], dict[str, Any]]
    sentence: Callable[[Summary], str]
    answer: Callable[[Summary], Answer | None] = no_answer
    render: Callable[[Any], str]  # the self-contained page
    policy: str = PLAIN_POLICY
    page: ReportPage | None = None  # None: the self-contained page is the only one
    put_verdicts: Callable[[Summary, str | None, str, Connection], None] = no_verdicts
    kept_verdicts: KeptVerdicts | None = None  # what put_verdicts fills
    metrics: tuple[Metric, ...] = ()
    #: The second argument: names of the models that the service offers.
    families: Callable[[Connection, frozenset[str]], Iterator[Family]] = no_families

    # From a report that was made elsewhere. Raises ValidationError.
    check_submitted: Callable[[Report], Report] = dict
    #: The id of the stored report of the same piece of work, in whichever words it says it.
    same_work: Callable[[Report, Connection], str | None] = no_same_work
    #: None: driftscope probe NAME.
    command_line: CommandLine | None = None

    # When a report is deleted.
    stays: str = ""  # a sentence on what of it goes on being used

    # What only some have.
    schedulable: bool = True
    routers: tuple[APIRouter, ...] = ()
    page_routers: tuple[APIRouter, ...] = ()
    sections: tuple[Section, ...] = ()
    body_limits: Mapping[re.Pattern[str], int] | None = None
    recordings: tuple[str, ...] = ()  # for the demo, in the folder `recordings` next to kind.py
    #: Whether a recording is in the store; None: it is if any report of the kind is.
    recorded: Callable[[Connection, Report], bool] | None = None

    @property
    def of_a_model(self) -> bool:
        return self.request is not None and "model" in self.request.model_fields

    @property
    def command(self) -> CommandLine:
        return self.command_line or CommandLine(("driftscope", "probe", self.name))

    def job(self, request: BaseModel | None, settings: Settings) -> dict[str, Any]:
        """The request of a job, as the probe's process reads it. Raises InvalidField."""
        return {"kind": self.name, **self.prepare(request, settings)}

    def report_page(self, report_id: str) -> str:
        return f"/{'reports' if self.page is None else 'probes'}/{report_id}"


class ExperimentsService(JobsService, Protocol):
    """The parts of the service that experiments work on."""

    @property
    def report_files(self) -> ReportFiles: ...
    @property
    def kinds(self) -> Mapping[str, Kind]: ...
    def step_brought(self, run: str, step: int) -> Mapping[str, Any] | None:
        """Of a pushed step, what a diagnosis takes from it; None where there is none."""
        ...


CurrentService = Annotated[ExperimentsService, Depends(current_service)]


#: What reading, summing up and drawing a report raise where a part of it is missing or of another
#: shape. Whatever passes can be shown later, too.
UNFIT: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError)


#: Characters of what is wrong with a report, in an answer.
MOST_REASON: Final = 500


def draw_once(report: Report, kind: Kind) -> None:
    """Of a report that was made elsewhere, before it is stored: read, summed up and drawn, so that
    no page fails at it later. Raises one of UNFIT."""
    typed = kind.read(report)
    kind.sentence(kind.summarise(typed))
    kind.render(typed)
