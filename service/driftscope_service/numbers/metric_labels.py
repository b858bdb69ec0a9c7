"""What each number of a comparison is called, in which unit it stands and how it is written.

In: the flat names of Comparison.to_dict(). Out: labels for readers. A name that is not listed here
is still shown, under its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from driftscope_service.numbers.number_format import (
    UNDEFINED,
    interval,
    near_one,
    number,
    one_minus,
    share,
)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str  # of Comparison.to_dict()
    label: str
    unit: str  # "" where there is none
    write: Callable[[float], str]


def _metric(name: str, label: str, unit: str = "", write: Callable[..., str] = number) -> Metric:
    return Metric(name, label, unit, write)


_NATS = "nats"

#: Groups in reading order. Δ = logp_trainer − logp_rollout, ρ = exp(Δ), S = ΣΔ of a sequence.
GROUPS: Mapping[str, tuple[Metric, ...]] = {
    "Difference in log-probability": (
        _metric("abs_diff_mean", "mean |Δ| over tokens", _NATS),
        _metric("abs_diff_seq_mean", "mean |Δ| over sequences", _NATS),
        _metric("abs_diff_p50", "median |Δ|", _NATS),
        _metric("abs_diff_p90", "90th percentile of |Δ|", _NATS),
        _metric("abs_diff_p95", "95th percentile of |Δ|", _NATS),
        _metric("abs_diff_p99", "99th percentile of |Δ|", _NATS),
        _metric("abs_diff_p99p9", "99.9th percentile of |Δ|", _NATS),
        _metric("abs_diff_p99p99", "99.99th percentile of |Δ|", _NATS),
        _metric("abs_diff_max", "largest |Δ|", _NATS),
        _metric("abs_diff_share_above_ln2", "tokens with |Δ| above ln 2", "", share),
        _metric("confident_disagreements", "confident disagreements"),
        _metric("confident_disagreement_share", "share of confident disagreements", "", share),
        _metric("diff_mean", "mean Δ, signed", _NATS),
        _metric("diff_std", "standard deviation of Δ", _NATS),
    ),
    "KL divergence, KL(rollout ‖ trainer)": (
        _metric("kl_k1", "k1 = mean(−Δ)", _NATS),
        _metric("kl_k2", "k2 = mean(½Δ²)", _NATS),
        _metric("kl_k3", "k3 = mean(ρ − 1 − Δ)", _NATS),
    ),
    "Other divergences": (
        _metric("kl_reverse_k3", "mean(1/ρ − 1 + Δ), reverse k3", _NATS),
        _metric("kl_reverse_unbiased", "mean(ρΔ), KL(trainer ‖ rollout)", _NATS),
        _metric("js_divergence", "Jensen-Shannon term of NeMo-RL", _NATS),
        _metric("binary_kl_mean", "mean binary KL", _NATS),
        _metric("binary_kl_max", "largest binary KL", _NATS),
        _metric("chi2_token", "χ² over tokens"),
        _metric("chi2_token_saturated", "tokens at the bound of χ²"),
        _metric("chi2_seq", "χ² over sequences"),
        _metric("chi2_seq_saturated", "sequences at the bound of χ²"),
    ),
    "Difference in probability": (
        _metric("prob_abs_diff_mean", "mean |p trainer − p rollout|"),
        _metric("prob_abs_diff_max", "largest |p trainer − p rollout|"),
        _metric("prob_abs_diff_std", "standard deviation of |p trainer − p rollout|"),
        _metric("prob_abs_diff_seq_mean", "mean |p trainer − p rollout| over sequences"),
        _metric("prob_diff_mean", "mean p trainer − p rollout, signed"),
        _metric("prob_pearson", "Pearson correlation of probabilities", "", near_one),
        _metric("token_mult_prob_error", "mean exp |Δ|", "", near_one),
        _metric("seq_mult_prob_error_mean", "mean exp |Δ| over sequences", "", near_one),
        _metric("seq_mult_prob_error_min", "smallest of a sequence", "", near_one),
        _metric("seq_mult_prob_error_max", "largest of a sequence", "", near_one),
    ),
    "Importance ratio ρ": (
        _metric("ratio_mean", "mean ρ", "", near_one),
        _metric("ratio_min", "smallest ρ", "", near_one),
        _metric("ratio_max", "largest ρ", "", near_one),
        _metric("ratio_std", "standard deviation of ρ"),
        _metric("ratio_abs_dev_mean", "mean |ρ − 1|"),
        _metric("ratio_share_outside_0p5_2", "tokens with ρ outside [0.5, 2]", "", share),
        _metric("ratio_share_above_2", "tokens with ρ above 2", "", share),
        _metric("ratio_share_below_0p5", "tokens with ρ below 0.5", "", share),
        _metric("ratio_share_outside_0p9_1p1", "tokens with ρ outside [0.9, 1.1]", "", share),
        _metric("ratio_share_outside_0p8_1p2", "tokens with ρ outside [0.8, 1.2]", "", share),
        _metric("ess_ratio_token", "effective sample size / tokens", "", near_one),
        _metric("ess_ratio_sequence", "effective sample size / sequences", "", near_one),
        _metric("ess_ratio_token_truncated", "the same with ρ capped at 2, tokens", "", near_one),
        _metric(
            "ess_ratio_sequence_truncated",
            "the same with exp S capped at 2, sequences",
            "",
            near_one,
        ),
    ),
    "Sequence log-ratio S": (
        _metric("seq_logratio_mean", "mean S", _NATS),
        _metric("seq_logratio_std", "standard deviation of S", _NATS),
        _metric("seq_logratio_min", "smallest S", _NATS),
        _metric("seq_logratio_max", "largest S", _NATS),
        _metric("seq_logratio_per_token_mean", "mean S per token", "nats/token"),
        _metric("seq_logratio_per_token_std", "standard deviation of S per token", "nats/token"),
        _metric(
            "seq_logratio_slope_per_1000_tokens",
            "slope of S over the length",
            "nats per 1,000 tokens",
        ),
        _metric("seq_ratio_mean", "mean exp S", "", near_one),
        _metric("seq_ratio_min", "smallest exp S", "", near_one),
        _metric("seq_ratio_max", "largest exp S", "", near_one),
        _metric("seq_geo_ratio_mean", "mean geometric ratio", "", near_one),
        _metric("seq_geo_ratio_min", "smallest geometric ratio", "", near_one),
        _metric("seq_geo_ratio_max", "largest geometric ratio", "", near_one),
    ),
    "Perplexity of the responses": (
        _metric("training_ppl", "trainer"),
        _metric("training_log_ppl", "trainer, logarithm", "nats/token"),
        _metric("rollout_ppl", "rollout"),
        _metric("rollout_log_ppl", "rollout, logarithm", "nats/token"),
        _metric("log_ppl_diff_mean", "mean difference of logarithms", "nats/token"),
        _metric("log_ppl_diff_abs_mean", "mean size of that difference", "nats/token"),
        _metric("log_ppl_diff_max", "largest difference", "nats/token"),
        _metric("log_ppl_diff_min", "smallest difference", "nats/token"),
        _metric("ppl_ratio", "mean ratio of perplexities", "", near_one),
    ),
    "Bitwise equality": (
        _metric("bitwise_equal_fraction", "bitwise equal tokens", "", share),
        _metric("bitwise_equal_sequences", "bitwise equal sequences"),
        _metric("bitwise_equal_sequence_fraction", "share of bitwise equal sequences", "", share),
        _metric("first_differing_token", "first differing token, counted from 0"),
        _metric("first_differing_token_median", "median of that over sequences"),
        _metric("ulp_distance_p50", "median distance in float32 ULPs"),
        _metric("ulp_distance_max", "largest distance in float32 ULPs"),
    ),
    "What was compared": (
        _metric("tokens", "tokens compared"),
        _metric("sequences", "sequences compared"),
        _metric("masked_tokens", "masked tokens"),
        _metric("nonfinite_tokens", "tokens left out: a side is not finite"),
        _metric("nonfinite_sequences", "sequences with such tokens"),
        _metric("empty_sequences", "sequences without any token"),
        _metric("rollout_nonfinite", "rollout: not finite"),
        _metric("trainer_nonfinite", "trainer: not finite"),
        _metric("rollout_zero", "rollout: exactly 0"),
        _metric("trainer_zero", "trainer: exactly 0"),
        _metric("rollout_positive", "rollout: above 0"),
        _metric("trainer_positive", "trainer: above 0"),
    ),
}
OTHER = "Further numbers"
METRICS: Mapping[str, Metric] = {m.name: m for group in GROUPS.values() for m in group}

#: The numbers of every cell side by side, with headings short enough for that.
SUMMARY = (
    _metric("tokens", "tokens"),
    _metric("abs_diff_mean", "mean |Δ|"),
    _metric("abs_diff_p99", "p99 |Δ|"),
    _metric("abs_diff_max", "max |Δ|"),
    _metric("kl_k3", "k3"),
    _metric("prob_pearson", "1 − Pearson", "", one_minus),
    _metric("ratio_share_outside_0p5_2", "ρ outside [0.5,\u00a02]", "", share),
    _metric("ratio_share_outside_0p9_1p1", "ρ outside [0.9,\u00a01.1]", "", share),
    _metric("seq_logratio_std", "std S"),
    _metric("ess_ratio_token", "1 − ESS/n", "", one_minus),
    _metric("bitwise_equal_fraction", "bitwise equal", "", share),
    _metric("first_differing_token", "first ≠ at"),
)

#: Keys of Comparison.to_dict() that describe numbers and are none.
_ABOUT = {"intervals", "interval_level", "interval_resamples", "interval_seed", "undefined"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One number of one comparison as text."""

    metric: Metric
    value: str  # "undefined" where there is none
    interval: str | None
    reason: str | None  # why the value, or else its interval, is undefined


def shown(comparison: Mapping[str, Any], metric: Metric) -> Shown:
    name = metric.name
    value, reasons = comparison.get(name), comparison.get("undefined", {})
    if value is None:
        return Shown(metric, UNDEFINED, None, reasons.get(name, "not measured"))
    limits = comparison.get("intervals", {}).get(name)
    text = None if limits is None else interval(*(metric.write(limit) for limit in limits))
    return Shown(metric, metric.write(value), text, reasons.get(f"intervals.{name}"))


def grouped(comparison: Mapping[str, Any]) -> dict[str, list[Shown]]:
    """Every number of the comparison, unlisted ones last."""
    groups = {
        title: [shown(comparison, metric) for metric in metrics if metric.name in comparison]
        for title, metrics in GROUPS.items()
    }
    groups[OTHER] = [
        shown(comparison, _metric(name, name))
        for name, value in comparison.items()
        if name not in METRICS and name not in _ABOUT and _is_number_or_null(value)
    ]
    return {title: rows for title, rows in groups.items() if rows}


def _is_number_or_null(value: object) -> bool:
    return value is None or isinstance(value, (int, float))
