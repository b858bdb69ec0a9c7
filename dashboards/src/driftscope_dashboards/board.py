"""The frame of every board: variables, links to the other boards and our pages, annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import DataSourceRef

from driftscope_dashboards.query import DATASOURCE, Query

TAG = "driftscope"
REFRESH = "30s"
#: Where the pages of the service are; a constant of the board that can be changed in its settings.
PAGES_DEFAULT = "http://127.0.0.1:8321"
BUILT_IN = DataSourceRef(type_val="grafana", uid="-- Grafana --")


def board(
    uid: str,
    title: str,
    description: str,
    *,
    variables: Sequence[Any] = (),
    annotations: Sequence[Any] = (),
    since: str = "now-6h",
) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh(REFRESH)
        .time(since, "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.TextBoxVariable("pages").label("Pages at").default_value(PAGES_DEFAULT)
        )
        .link(
            dashboard.DashboardLink("driftscope")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .link(
            dashboard.DashboardLink("Pages")
            .type(models.DashboardLinkType.LINK)
            .url("${pages}")
            .target_blank(True)
        )
    )
    for variable in variables:
        made = made.with_variable(variable)
    for annotation in annotations:
        made = made.annotation(annotation)
    return made


def label_values(name: str, label: str, metric: str, of: str) -> dashboard.QueryVariable:
    """A variable whose values are those of label `of` of a metric; several may be chosen."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(f"label_values({metric}, {of})")
        .datasource(DATASOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def annotation(
    name: str, expr: str, title: str, text: str, color: str
) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .title_format(title)
        .text_format(text)
        .target(Query(expr).build("A"))
    )


def row(title: str) -> dashboard.Row:
    return dashboard.Row(title)
