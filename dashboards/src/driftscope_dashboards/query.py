"""A PromQL query of a panel. Every one is run against a real Prometheus by the tests."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: The variable that every board has; a panel never names a datasource of its own.
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""
    instant: bool = False  # one value now, for stats and tables
    format: PromQueryFormat = PromQueryFormat.TIME_SERIES
    exemplar: bool = False

    def build(self, ref_id: str) -> prometheus.Dataquery:
        query = (
            prometheus.Dataquery()
            .expr(self.expr)
            .legend_format(self.legend or "__auto")
            .format(self.format)
            .exemplar(self.exemplar)
            .datasource(DATASOURCE)
            .ref_id(ref_id)
        )
        return query.instant() if self.instant else query.range()


def now(expr: str, legend: str = "") -> Query:
    return Query(expr, legend, instant=True)


def rows(expr: str) -> Query:
    return Query(expr, instant=True, format=PromQueryFormat.TABLE)
