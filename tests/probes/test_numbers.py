"""The catalogue of numbers: one row per field of a comparison, and what a row says is true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch import Extras, compare
from driftscope_probes.numbers import EXTRAS, GROUPS, NUMBERS

ROWS = [row for rows in (*GROUPS.values(), EXTRAS) for row in rows]
#: Of one side, of what was compared, or counted: they have no value at which both sides agree.
WITHOUT_IDEAL = {
    *("training_ppl", "training_log_ppl", "rollout_ppl", "rollout_log_ppl", "tokens", "sequences"),
    *("bitwise_equal_sequences", "first_differing_token", "first_differing_token_median"),
    *("first_differing_position", "first_differing_position_median"),
    *("first_differing_position_max", "rollout_significant_bits", "trainer_significant_bits"),
    *("rollout_half_step_p99", "trainer_half_step_p99"),
    *("entropy_mean", "lag_mean", "lag_max", "stale_token_share", "staleness_share"),
}


@pytest.fixture(scope="module")
def equal_sides() -> dict[str, Any]:
    logprobs = -np.random.default_rng(0).exponential(0.5, 40)
    extras = Extras(
        entropy=np.ones(40),
        behavior_version=np.array([0, 1, 1]),
        position_ids=np.arange(40),
        train_version=1,
    )
    return compare(logprobs, logprobs, [0, 10, 25, 40], extras=extras).to_dict()


def test_every_field_has_one_row_and_every_row_a_field(equal_sides: dict[str, Any]) -> None:
    about = {"intervals", "interval_level", "interval_resamples", "interval_seed", "undefined"}
    assert sorted(row.name for row in ROWS) == sorted(equal_sides.keys() - about)
    assert len(NUMBERS) == len(ROWS)


def test_equal_sides_give_the_ideal(equal_sides: dict[str, Any]) -> None:
    apart = {row.name for row in ROWS if equal_sides[row.name] != row.ideal}
    assert apart == WITHOUT_IDEAL


def test_what_has_a_scale_is_followed_over_steps() -> None:
    assert {row.name for row in ROWS if row.scale} == set(SERIES)


def test_labels_tell_the_numbers_of_one_metric_apart() -> None:
    exported = [(row.export, row.export_label) for row in ROWS if row.export]
    assert len(set(exported)) == len(exported)
    assert all(bool(export.label) == bool(label) for export, label in exported)
