"""A number of the comparison in words: label, value, unit, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch.limits import LIMITS, Direction, pair_precision
from driftscope_service.http.errors import InvalidField
from driftscope_service.numbers.metric_labels import METRICS, Metric
from driftscope_service.numbers.number_format import number, share

#: What the series has and the comparison of a report has not.
_MORE: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric("kl_k3_entropy_ratio", "k3 relative to the entropy", "", number),
        Metric("lag_mean", "mean lag of the weights", "versions", number),
        Metric("stale_token_share", "tokens from older weights", "", share),
        Metric("lag0_abs_diff_mean", "mean |Δ| at lag 0", "nats", number),
        Metric("staleness_share", "share of |Δ| that older weights explain", "", share),
    )
}
#: Shown first, in this order: size, tail, divergence, likeness, weight loss, disagreement.
HEADLINE: Final = (
    "abs_diff_mean",
    "abs_diff_p99",
    "kl_k3",
    "prob_pearson",
    "ess_ratio_token",
    "confident_disagreement_share",
)
DEFAULT: Final = HEADLINE[0]


def metric(name: str) -> Metric:
    """A name that is not known is its own label."""
    return METRICS.get(name) or _MORE.get(name) or Metric(name, name, "", number)


def label(name: str) -> str:
    return metric(name).label


def value(name: str, found: float | None) -> str:
    return "undefined" if found is None else metric(name).write(found)


def with_unit(name: str, found: float | None) -> str:
    unit = metric(name).unit
    text = value(name, found)
    return f"{text} {unit}" if unit and found is not None else text


def unit(name: str, found: float | None) -> str:
    """ "" where there is none, or no value."""
    return "" if found is None else metric(name).unit


def check_metric(name: str) -> None:
    if name not in SERIES:
        raise InvalidField(
            "query/metric",
            f"{name[:80]!r} is not a number that is followed over steps",
            remedy=f"use one of {', '.join(SERIES)}.",
        )


@dataclass(frozen=True, slots=True)
class MetricLimit:
    direction: Direction
    value: float
    source: str


def metric_limits(
    metric: str, rollout_dtype: str | None, trainer_dtype: str | None
) -> list[MetricLimit]:
    precision = pair_precision(rollout_dtype, trainer_dtype)
    return [
        MetricLimit(limit.direction, limit.values[precision], limit.source)
        for limit in LIMITS
        if limit.metric == metric
    ]
