"""What a comparison draws: one number of two runs over their steps, |Δ| of two steps in buckets.

In: points of runs, or histograms. Out: PlotData with a column that says whose row it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from driftscope_probes.drift.series import SERIES_SCALES
from driftscope_service.store.series_query import MetricPoint
from driftscope_service.web import address, metric_words
from driftscope_service.web.compared import Side
from driftscope_service.web.downsample import Bucket, downsample
from driftscope_service.web.metric_limits import metric_limits
from driftscope_service.web.plot_data import PlotData
from driftscope_service.web.step.histogram import HistogramCounts

LETTERS: Final = ("A", "B")
DRIFT_COLUMNS: Final = ("side", "run", "first_step", "last_step", "low", "mean", "high", "steps")
HISTOGRAM_COLUMNS: Final = ("side", "step", "above", "up_to", "tokens", "share")


def overlay_data(
    sides: Sequence[Side], metric: str, points: Sequence[list[MetricPoint]], buckets: int
) -> PlotData:
    rows = [
        (letter, one.run.name, *_numbers(group))
        for letter, one, of_run in zip(LETTERS, sides, points, strict=True)
        for group in downsample(of_run, buckets)
        if group.mean is not None
    ]
    series = SERIES_SCALES[metric]
    told = metric_words.metric(metric)
    limits = {
        (limit.direction, limit.value)
        for one in sides
        for limit in metric_limits(metric, one.run.rollout_dtype, one.run.trainer_dtype)
    }
    about: dict[str, Any] = {
        "sides": [one.run.name for one in sides],
        "pages": [address.run_page(one.run.name) for one in sides],
        "metric": metric,
        "unit": told.unit,
        "logarithmic": series.scale == "log" and series.ideal == 0,
        "limits": [{"direction": name, "value": value} for name, value in sorted(limits)],
        "empty": "No step of either run has a value of this number.",
    }
    if any(row[-1] > 1 for row in rows):
        about["note"] = "Each point is the mean of a group of steps."
    return PlotData(DRIFT_COLUMNS, rows, about)


def histograms_data(sides: Sequence[Side], counts: Sequence[HistogramCounts | str]) -> PlotData:
    """`counts`: why not, as a sentence, where the tokens of a step cannot be read."""
    rows = []
    for letter, one, found in zip(LETTERS, sides, counts, strict=True):
        if isinstance(found, str):
            continue
        total = found.zero + int(found.counts.sum())
        rows += [
            (letter, one.label, above, up_to, tokens, tokens / total)
            for above, up_to, tokens in found.rows()
        ]
    missing = [
        f"{one.label}: {found}"
        for one, found in zip(sides, counts, strict=True)
        if isinstance(found, str)
    ]
    about: dict[str, Any] = {
        "sides": [one.label for one in sides],
        "empty": " ".join(missing) or "Every Δ of both steps is 0.",
    }
    if missing:
        about["note"] = " ".join(missing)
    return PlotData(HISTOGRAM_COLUMNS, rows, about)


def _numbers(group: Bucket) -> tuple[int, int, float | None, float | None, float | None, int]:
    return (
        *(group.first_step, group.last_step),
        *(group.low, group.mean, group.high),
        group.steps,
    )
