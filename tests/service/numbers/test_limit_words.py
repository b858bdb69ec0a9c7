"""A value and its limit stand in one unit, and nothing is a row of nines."""

from __future__ import annotations

import pytest

from driftscope_probes.mismatch.thresholds import (
    COARSE_TO_FINE,
    THRESHOLDS,
    Precision,
    Threshold,
)
from driftscope_probes.numbers import NUMBERS
from driftscope_service.numbers.limit_words import Beside, beside, crossed
from driftscope_service.numbers.metric_words import MetricThreshold

ESS = "effective sample size / tokens"


def above(value: float) -> MetricThreshold:
    return MetricThreshold("above", value, "somebody")


def below(value: float) -> MetricThreshold:
    return MetricThreshold("below", value, "somebody")


def told(shown: Beside) -> tuple[str, str, list[str]]:
    return shown.label, shown.value_with_unit, [shown.limit_with_unit(one) for one in shown.limits]


@pytest.mark.parametrize(
    ("name", "value", "limit", "expected"),
    [
        (
            "abs_diff_share_above_ln2",
            0.0396,
            above(0.1),
            ("tokens with |Δ| above ln 2", "3.96%", ["above 10.0%"]),
        ),
        (
            "abs_diff_mean",
            0.25,
            above(0.1),
            ("mean |Δ| over tokens", "0.250 nats", ["above 0.100 nats"]),
        ),
        (
            "prob_pearson",
            0.98,
            below(0.99),
            ("Pearson correlation of probabilities", "0.980", ["below 0.990"]),
        ),
        ("prob_pearson", 1 - 5.7e-12, below(0.99), ("1 − Pearson", "5.70e-12", ["above 0.0100"])),
        # The limit is what would be a row of nines: the value follows it.
        ("prob_pearson", 0.98, below(1 - 8.2e-10), ("1 − Pearson", "0.0200", ["above 8.20e-10"])),
        (
            "token_mult_prob_error",
            1.00002,
            above(1.0000143),
            ("mean exp |Δ| − 1", "2.00e-5", ["above 1.43e-5"]),
        ),
        ("ess_ratio_token", 1.0, below(0.9), (ESS, "1", ["below 0.90"])),
        ("ess_ratio_token", None, below(0.9), (ESS, "undefined", ["below 0.90"])),
    ],
)
def test_one_form_for_a_value_and_its_limit(
    name: str, value: float | None, limit: MetricThreshold, expected: tuple[str, str, list[str]]
) -> None:
    label, value_text, limits = told(beside(name, value, [limit]))
    assert (label, value_text, limits) == expected


def test_rounding_below_float64_is_said_as_such() -> None:
    assert beside("prob_pearson", 1 - 2**-53).value == "<1.00e-15"


def test_a_number_without_a_limit_keeps_its_own_form() -> None:
    assert told(beside("kl_k3", 1.23e-9)) == ("k3 = mean(ρ − 1 − Δ)", "1.23e-9 nats", [])


@pytest.mark.parametrize("precision", COARSE_TO_FINE)
@pytest.mark.parametrize("one", THRESHOLDS, ids=lambda one: f"{one.metric}-{one.direction}")
def test_no_published_limit_is_longer_than_a_tile(one: Threshold, precision: Precision) -> None:
    limit = MetricThreshold(one.direction, one.values[precision], one.source)
    above_one = () if NUMBERS[one.metric].form == "fraction" else (1 + 1e-9, 1.5, 1e6)
    for value in (None, 0.0, 0.5, 1 - 1e-6, 1 - 1e-12, *above_one):
        shown = beside(one.metric, value, [limit])
        longest = max(f"{shown.value} {shown.limits[0]}".split(), key=len)
        assert len(longest) <= 10, shown


def test_a_share_next_to_all_is_said_by_what_is_missing() -> None:
    assert beside("bitwise_equal_fraction", 1 - 1e-6).value == "all but 1.00e-4%"
    assert beside("bitwise_equal_fraction", 1.0).value == "100%"
    assert beside("bitwise_equal_fraction", 0.999).value == "99.900%"


def test_a_value_that_is_not_finite_still_has_its_limit() -> None:
    entry = {"metric": "kl_k3", "value": None, "limit": 0.015, "direction": "above", "source": "s"}
    shown = crossed(entry)
    assert (shown.value_with_unit, str(shown.limits[0])) == ("not finite", "above 0.0150")
