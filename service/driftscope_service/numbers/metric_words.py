"""A metric as a reader of a page names it: label, unit, value as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_service.export.metric_labels import METRICS, Metric
from driftscope_service.export.number_format import number, share

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
