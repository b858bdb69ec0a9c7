"""Panels: what every one of a kind has in common. In: title, description, queries, unit.

Descriptions say what is shown and what to do about it; units are Grafana's identifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from driftscope_dashboards.query import DATASOURCE, Query

#: Of the 24 columns of a board.
THIRD, HALF, FULL = 8, 12, 24
STAT_WIDTH, STAT_HEIGHT = 4, 4
PLOT_HEIGHT = 8
GREEN, YELLOW, RED = "green", "yellow", "red"
#: (from this value on, colour); the first one has no value.
Steps = Sequence[tuple[float | None, str]]
#: A number that must stay 0.
BAD_FROM_ONE: Steps = ((None, GREEN), (1.0, RED))
NO_JUDGEMENT: Steps = ((None, "blue"),)


def stat_panel(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    steps: Steps = NO_JUDGEMENT,
    mappings: Sequence[Any] = (),
    decimals: int | None = None,
    width: int = STAT_WIDTH,
) -> stat.Panel:
    panel = (
        _framed(stat.Panel(), title, description, queries, unit)
        .thresholds(_thresholds(steps))
        .color_scheme(_color(models.FieldColorModeId.THRESHOLDS))
        .mappings(list(mappings))
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(STAT_HEIGHT)
    )
    panel = panel if decimals is None else panel.decimals(decimals)
    assert isinstance(panel, stat.Panel)
    return panel


def plot(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    width: int = THIRD,
    logarithmic: bool = False,
    limit: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    scale = common_models.ScaleDistribution.LOG if logarithmic else None
    panel = (
        _framed(timeseries.Panel(), title, description, queries, unit)
        .color_scheme(_color(models.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(2)
        .fill_opacity(20 if stacked else 0)
        .span_nulls(False)
        .show_points(common_models.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .placement(common_models.LegendPlacement.BOTTOM)
            .display_mode(common_models.LegendDisplayMode.LIST)
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .span(width)
        .height(PLOT_HEIGHT)
    )
    if scale is not None:
        panel = panel.scale_distribution(common.ScaleDistributionConfig().type(scale).log(10))
    if stacked:
        panel = panel.stacking(
            common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A")
        )
    if limit is not None:
        panel = panel.thresholds(_thresholds(((None, "transparent"), (limit, RED))))
        panel = panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.LINE)
        )
    assert isinstance(panel, timeseries.Panel)
    return panel


def heat_map(title: str, description: str, query: Query, *, unit: str) -> heatmap.Panel:
    """Of a distribution in buckets `le`: time across, buckets up, share of tokens as colour."""
    panel = (
        _framed(heatmap.Panel(), title, description, [query], "short")
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .steps(64)
            .exponent(0.5)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .show_legend()
        .span(HALF)
        .height(PLOT_HEIGHT + 2)
    )
    assert isinstance(panel, heatmap.Panel)
    return panel


def state_timeline(
    title: str,
    description: str,
    queries: Sequence[Query],
    mappings: Sequence[Any],
    *,
    width: int = FULL,
    height: int = PLOT_HEIGHT,
) -> statetimeline.Panel:
    panel = (
        _framed(statetimeline.Panel(), title, description, queries, "short")
        .mappings(list(mappings))
        .color_scheme(_color(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(((None, "text"),)))
        .merge_values(True)
        .span(width)
        .height(height)
    )
    assert isinstance(panel, statetimeline.Panel)
    return panel


def table_panel(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    width: int = HALF,
    joined_by: str | None = None,
    renamed: dict[str, str] | None = None,
    hidden: Sequence[str] = (),
    link: tuple[str, str, str] | None = None,  # column, title, address
) -> table.Panel:
    panel = _framed(table.Panel(), title, description, queries, unit).span(width)
    panel = panel.height(PLOT_HEIGHT)
    if joined_by is not None:
        panel = panel.with_transformation(_transformation("joinByField", {"byField": joined_by}))
    always_hidden = ("Time", "__name__", "instance", "job", *hidden)
    options = {
        "excludeByName": dict.fromkeys(always_hidden, True),
        "renameByName": renamed or {},
    }
    panel = panel.with_transformation(_transformation("organize", options))
    if link is not None:
        column, title, address = link
        links = [{"title": title, "url": address, "targetBlank": True}]
        panel = panel.override_by_name(
            column, [models.DynamicConfigValue(id_val="links", value=links)]
        )
    assert isinstance(panel, table.Panel)
    return panel


def bars(
    title: str, description: str, query: Query, *, unit: str, width: int = HALF
) -> bargauge.Panel:
    panel = (
        _framed(bargauge.Panel(), title, description, [query], unit)
        .thresholds(_thresholds(NO_JUDGEMENT))
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(PLOT_HEIGHT)
    )
    assert isinstance(panel, bargauge.Panel)
    return panel


def value_map(options: dict[str, tuple[str, str]]) -> models.ValueMap:
    """{value: (text, colour)}"""
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(options.items())
        }
    )


def _framed(panel: Any, title: str, description: str, queries: Sequence[Query], unit: str) -> Any:
    panel = panel.title(title).description(description).datasource(DATASOURCE).unit(unit)
    for index, query in enumerate(queries):
        panel = panel.with_target(query.build(chr(ord("A") + index)))
    return panel


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def _color(mode: models.FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)


def _transformation(name: str, options: dict[str, Any]) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(id_val=name, options=options)
