"""Every number of a comparison has a label, a unit and a way to be written."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftscope_probes.mismatch import compare
from driftscope_service.numbers.metric_labels import METRICS, OTHER, SUMMARY, grouped, shown


def test_every_number_of_the_comparison_is_labelled(report: dict[str, Any]) -> None:
    comparison = report["grid"][0]["comparison"]
    groups = grouped(comparison)
    assert OTHER not in groups, [number.metric.name for number in groups[OTHER]]
    about = {"intervals", "interval_level", "interval_resamples", "interval_seed", "undefined"}
    names = {number.metric.name for numbers in groups.values() for number in numbers}
    assert names == comparison.keys() - about


def test_no_label_stands_for_a_number_that_does_not_exist(report: dict[str, Any]) -> None:
    assert METRICS.keys() <= report["grid"][0]["comparison"].keys()
    assert {metric.name for metric in SUMMARY} <= METRICS.keys()


def test_an_unlisted_number_is_shown_under_its_own_name(report: dict[str, Any]) -> None:
    comparison = {**report["grid"][0]["comparison"], "not_listed": 0.25}
    (number,) = grouped(comparison)[OTHER]
    assert (number.metric.label, number.value) == ("not_listed", "0.250")


def test_undefined_numbers_carry_their_reason() -> None:
    one_sequence = compare(np.array([-1.0]), np.array([-1.5]), [0, 1]).to_dict()
    std = shown(one_sequence, METRICS["seq_logratio_std"])
    assert std.value == "undefined"
    assert std.reason is not None and "at least two values" in std.reason
    mean = shown(one_sequence, METRICS["abs_diff_mean"])
    assert (mean.value, mean.interval) == ("0.500", None)
    assert mean.reason is not None and "at least two" in mean.reason
