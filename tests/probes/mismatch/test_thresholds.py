"""Published thresholds: each one is crossed by a planted value, healthy data crosses none."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.thresholds import (
    COARSE_TO_FINE,
    THRESHOLDS,
    Threshold,
    crossed_thresholds,
    pair_precision,
)

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text(encoding="utf-8")
#: Spread of Δ that healthy dense models show, by dtype of both sides (docs/limits.md).
HEALTHY_SPREAD = {"bf16": 0.06, "fp16": 0.0085, "fp32": 1.2e-5}


def comparison(spread: float, *, tokens: int = 4000, **changed: float) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    rollout = -rng.exponential(0.5, tokens)
    # |Δ| goes with 1 − p, and never lifts a log-probability above 0.
    trainer = rollout + spread * rng.normal(size=tokens) * -np.expm1(rollout)
    found = compare(rollout, np.minimum(trainer, 0.0), [0, tokens // 2, tokens], resamples=0)
    return {**found.to_dict(), **changed}


def crossed(given: dict[str, Any], dtype: str | None = "bf16") -> list[str]:
    found = crossed_thresholds(given, rollout_dtype=dtype, trainer_dtype=dtype)
    return [one.metric for one in found]


def test_every_name_is_one_of_the_comparison() -> None:
    names = comparison(0.01)
    assert [threshold.metric for threshold in THRESHOLDS if threshold.metric not in names] == []


@pytest.mark.parametrize("dtype", HEALTHY_SPREAD)
def test_healthy_data_crosses_nothing(dtype: str) -> None:
    given = comparison(HEALTHY_SPREAD[dtype])
    assert crossed(given, dtype) == []


@pytest.mark.parametrize(("dtype", "coarser"), [("fp16", "bf16"), ("fp32", "fp16")])
def test_what_is_healthy_in_a_coarser_dtype_is_not_in_a_finer(dtype: str, coarser: str) -> None:
    given = comparison(HEALTHY_SPREAD[coarser])
    assert {"abs_diff_mean", "kl_k3", "token_mult_prob_error"} <= set(crossed(given, dtype))


@pytest.mark.parametrize("threshold", THRESHOLDS, ids=lambda one: f"{one.metric} {one.direction}")
@pytest.mark.parametrize("precision", COARSE_TO_FINE)
def test_each_limit_is_crossed_beyond_it_and_not_at_it(
    threshold: Threshold, precision: str
) -> None:
    bound = threshold.values[precision]  # type: ignore[index]  # a literal, spelt as a parameter
    beyond = math.nextafter(bound, math.inf if threshold.direction == "above" else -math.inf)
    dtypes = {"rollout_dtype": precision, "trainer_dtype": precision}
    assert crossed_thresholds({threshold.metric: bound}, **dtypes) == ()
    (found,) = crossed_thresholds({threshold.metric: beyond}, **dtypes)
    assert (found.metric, found.value, found.limit) == (threshold.metric, beyond, bound)
    assert (found.direction, found.source) == (threshold.direction, threshold.source)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["limit"] == bound


def test_finer_dtypes_have_limits_at_least_as_tight() -> None:
    for threshold in THRESHOLDS:
        values = [threshold.values[precision] for precision in COARSE_TO_FINE]
        assert values == sorted(values, reverse=threshold.direction == "above"), threshold.metric


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf])
def test_a_value_that_is_not_finite_crosses(value: float) -> None:
    (found,) = crossed_thresholds({"abs_diff_mean": value}, rollout_dtype=None, trainer_dtype=None)
    assert found.value is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_number_that_overflowed_crosses() -> None:
    given = compare([-1e4, -1.0], [-0.5, -1.0], [0, 2], resamples=0).to_dict()
    assert given["kl_k3"] is None
    assert "kl_k3" in crossed(given)


def test_nonfinite_tokens_cross() -> None:
    given = compare([-0.5, -np.inf, -1.0], [-0.5, -0.5, -1.0], [0, 3], resamples=0).to_dict()
    assert crossed(given) == ["nonfinite_tokens"]


def test_undefined_and_missing_numbers_cross_nothing() -> None:
    assert crossed({"prob_pearson": None, "undefined": {"prob_pearson": "constant"}}) == []
    assert crossed({}) == []


@pytest.mark.parametrize(
    ("rollout", "trainer", "precision"),
    [
        ("bf16", "bf16", "bf16"),
        ("torch.bfloat16", "FP32", "bf16"),
        ("float16", "float32", "fp16"),
        ("fp32", "float32", "fp32"),
        ("fp8_e4m3", "bf16", "unknown"),
        (None, "fp32", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_the_coarser_side_decides(rollout: str | None, trainer: str | None, precision: str) -> None:
    assert pair_precision(rollout, trainer) == precision


def test_the_page_lists_every_limit_as_it_is() -> None:
    rows = re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)
    assert rows == [row(threshold) for threshold in THRESHOLDS]


def row(threshold: Threshold) -> str:
    values = " | ".join(f"{threshold.values[precision]:.8g}" for precision in COARSE_TO_FINE)
    # A bar within a cell would begin another one.
    source = threshold.source.replace("|", "\\|")
    return f"| `{threshold.metric}` | {threshold.direction} | {values} | {source} |"
