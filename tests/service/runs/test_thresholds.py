"""How much of a limit is used, against crossed_thresholds itself."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch.thresholds import THRESHOLDS, Precision, crossed_thresholds
from driftscope_service.runs.metrics import threshold_states

DTYPES = {"unknown": "fp8", "bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}
NUMBERS = st.none() | st.floats(-3.0, 3.0) | st.sampled_from([0.0, 1.0, 0.1, 0.015, 0.99])


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries({limit.metric: NUMBERS for limit in THRESHOLDS}),
    st.sampled_from(get_args(Precision)),
)
def test_over_is_what_crossed(comparison: dict[str, Any], precision: Precision) -> None:
    dtype = DTYPES[precision]
    crossed = {
        (limit.metric, limit.direction)
        for limit in crossed_thresholds(comparison, rollout_dtype=dtype, trainer_dtype=dtype)
    }
    states = list(threshold_states(comparison, precision, ()))
    assert {(state.metric, state.direction) for state in states if state.over} == crossed
    for state in states:
        if state.used is not None and abs(state.used - 1) > 1e-9:
            assert (state.used > 1) == state.over


@pytest.mark.parametrize(
    ("metric", "value", "used"),
    [("kl_k3", 0.03, 2.0), ("prob_pearson", 0.98, 2.0), ("ess_ratio_token", 1.0, 0.0)],
)
def test_one_is_at_the_limit(metric: str, value: float, used: float) -> None:
    states = threshold_states({metric: value}, "bf16", ())
    [found] = [each for each in states if each.used is not None]
    assert found.metric == metric
    assert found.used == pytest.approx(used)


def test_what_overflowed_is_beyond_every_limit() -> None:
    found = [each for each in threshold_states({"kl_k3": None}, "bf16", {"kl_k3"}) if each.over]
    assert [(each.metric, each.used) for each in found] == [("kl_k3", math.inf)]


def test_where_the_ideal_is_the_limit_nothing_is_used() -> None:
    states = threshold_states({"nonfinite_tokens": 3}, "bf16", ())
    assert [(each.used, each.over) for each in states if each.metric == "nonfinite_tokens"] == [
        (None, True)
    ]
