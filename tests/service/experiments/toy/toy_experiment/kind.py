"""A kind that only the tests know: everything that an experiment can bring, as small as can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from driftscope_service.experiments.kind import Kind, Report, ReportPage
from driftscope_service.experiments.quotas import at_most
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import Metric
from driftscope_service.pages.navigation import Section
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.settings import Settings

SIZE: Final = Metric("driftscope_toy_size", "gauge", "", "Size of the last toy.", ())


class ToyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0, description="how far to count")


def prepare(request: ToyRequest, settings: Settings) -> dict[str, Any]:
    at_most("/size", str(request.size), request.size, 100, "DRIFTSCOPE_MAX_TOYS")
    return {"request": request.model_dump()}


def families(connection: Connection, _offered: frozenset[str]) -> Iterator[Family]:
    family = Family(SIZE)
    last = ReportRepository(connection).latest("toy")
    if last is not None:
        family.add([], last.summary["size"])
    yield family


def page(report: Report, query: Mapping[str, str]) -> dict[str, Any]:
    return {"most": query.get("most", len(report["sizes"]))}


KIND: Final = Kind(
    name="toy",
    label="Toy",
    package=__package__,
    docs="toy.md",
    operation="start_toy",
    description="Queue a toy.",
    request=ToyRequest,
    prepare=prepare,
    runner="toy_probe",
    smaller="ask for a smaller toy.",
    report_holds="sizes",
    summarise=lambda report: {"size": len(report["sizes"])},
    sentence=lambda summary: f"A toy of size {summary['size']}.",
    render=lambda report: f"<p>A toy of {len(report['sizes'])}</p>",
    page=ReportPage(
        "toy_experiment:templates/page",
        page,
        {"sizes": lambda report: PlotData(("size",), [[one] for one in report["sizes"]], {})},
        parameters=("most",),
    ),
    metrics=(SIZE,),
    families=families,
    sections=(Section("toys", "Toys", "/probes?kind=toy"),),
)
