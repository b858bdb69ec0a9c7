"""Every number of a comparison in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.numbers import NUMBERS
from driftscope_service.numbers.metric_words import (
    ABOUT,
    HEADLINE,
    OTHER,
    SUMMARY,
    grouped,
    shown,
)


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rollout = -rng.exponential(0.5, 40)
    return compare(rollout, rollout + rng.normal(0, 0.01, 40), [0, 10, 25, 40]).to_dict()


def test_every_number_of_the_comparison_is_in_a_group(comparison: dict[str, Any]) -> None:
    groups = grouped(comparison)
    assert OTHER not in groups, [number.metric.name for number in groups[OTHER]]
    names = {number.metric.name for numbers in groups.values() for number in numbers}
    assert names == comparison.keys() - ABOUT


def test_what_is_picked_is_in_the_catalogue_and_has_a_heading() -> None:
    assert set(HEADLINE) <= NUMBERS.keys()
    assert all(row.label for row in SUMMARY)
    assert {row.name for row in SUMMARY} == {row.name for row in NUMBERS.values() if row.short}


def test_an_unlisted_number_is_shown_under_its_own_name(comparison: dict[str, Any]) -> None:
    (number,) = grouped({**comparison, "not_listed": 0.25})[OTHER]
    assert (number.metric.label, number.value) == ("not_listed", "0.250")


def test_undefined_numbers_carry_their_reason() -> None:
    one_sequence = compare(np.array([-1.0]), np.array([-1.5]), [0, 1]).to_dict()
    std = shown(one_sequence, NUMBERS["seq_logratio_std"])
    assert std.value == "undefined"
    assert std.reason is not None and "at least two values" in std.reason
    mean = shown(one_sequence, NUMBERS["abs_diff_mean"])
    assert (mean.value, mean.interval) == ("0.500", None)
    assert mean.reason is not None and "at least two" in mean.reason
