"""Values above 0, and values on a coarser grid than the dtype that carries them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from .policy import analyze, pair, write


def bf16(values: NDArray[Any]) -> NDArray[np.float32]:
    """Rounded to the nearest, ties to even."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def test_how_far_above_0_tells_a_rounded_logit(tmp_path: Path) -> None:
    of = pair(19)
    sure = of.index % 3 == 0
    above = np.linspace(0.001, 0.134, int(sure.sum()))
    trainer = of.trainer.copy()
    trainer[sure] = above
    rollout = np.where(sure, -1e-4, of.rollout)
    printed = analyze(write(tmp_path, rollout, trainer, of.limits))
    (odd,) = printed.odd
    assert (odd["side"], odd["kind"], odd["count"]) == ("trainer", "positive", sure.sum())
    assert odd["value"] == pytest.approx(0.134)
    assert "above 0, up to +0.134 nats (rounding leaves 1e-7: a rounded logit" in printed.text
    assert printed.comparison["trainer_highest"] == pytest.approx(0.134)
    assert printed.comparison["rollout_highest"] == 0.0


def test_rounding_above_0_is_no_fault(tmp_path: Path) -> None:
    of = pair(19)
    sure = of.index % 3 == 0
    rollout = np.where(sure, -1e-7, of.rollout)
    trainer = np.where(sure, 1.2e-7, of.trainer)
    printed = analyze(write(tmp_path, rollout, trainer, of.limits), every=True)
    assert printed.odd == [] and "Values:" not in printed.text
    assert f"{sure.sum()} trainer values are above 0 by at most 1e-07: rounding." in printed.every


@pytest.mark.parametrize(("name", "bits"), [("bf16", 8), ("fp16", 11)])
def test_a_coarse_grid_is_named_with_what_it_costs(name: str, bits: int, tmp_path: Path) -> None:
    of = pair(20, dtype="fp32")
    rollout = of.rollout.astype(np.float32)
    stored = bf16(rollout) if name == "bf16" else rollout.astype(np.float16).astype(np.float32)
    both = {"rollout_dtype": "fp32", "trainer_dtype": "fp32"}
    printed = analyze(write(tmp_path, rollout, stored, of.limits, both))
    (odd,) = printed.odd
    assert (odd["side"], odd["kind"]) == ("trainer", "grid")
    assert f"The trainer's values have {bits} significant bits" in printed.text
    assert "as large as the difference" in printed.text
    size = np.quantile(np.abs(stored), 0.99)
    half = 2.0 ** (np.floor(np.log2(size)) - bits)
    assert f"half a step is up to {half:.1g} nats" in printed.text
    assert printed.comparison["trainer_significant_bits"] == bits
    assert printed.comparison["rollout_significant_bits"] == 24
    assert printed.comparison["trainer_half_step_p99"] == half


def test_full_float32_has_no_grid(tmp_path: Path) -> None:
    of = pair(21)
    printed = analyze(write(tmp_path, of.rollout, of.trainer, of.limits))
    assert printed.json["hygiene"]["found"] == []
