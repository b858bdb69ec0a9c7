"""Faults from one absolute position on, in one turn, of one replica: each told by its own label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .policy import BF16, analyze, pair, write

ONSET = 97


@pytest.mark.parametrize("gap", [0, 40])
def test_the_first_differing_absolute_position(gap: int, tmp_path: Path) -> None:
    """Prompts of different lengths; with `gap` positions leap ahead behind the tenth token."""
    of = pair(21, length=160, dtype="bf16")
    random = np.random.default_rng(3)
    positions = of.positions + np.where(of.index >= 10, gap, 0)
    late = positions >= ONSET
    trainer = of.rollout.astype(np.float32)
    moved = random.uniform(0.02, 0.15, late.sum()) * (random.random(late.sum()) < 0.5)
    trainer[late] -= moved.astype(np.float32)
    path = write(
        tmp_path, of.rollout, trainer, of.limits, BF16, position_ids=positions.astype(np.int32)
    )
    printed = analyze(path)
    differs = trainer != of.rollout.astype(np.float32)
    first = [
        positions[start:stop][differs[start:stop]].min()
        for start, stop in zip(of.limits[:-1], of.limits[1:], strict=True)
        if differs[start:stop].any()
    ]
    found = printed.comparison
    assert found["first_differing_position"] == min(first)
    assert found["first_differing_position_max"] == max(first)
    assert found["first_differing_position_median"] == np.median(first)
    expected = f"No bit differs before absolute position {min(first)}"
    assert f"{expected} ({min(first)} to {max(first)} over the sequences)." in printed.text
    position = printed.profile("position")
    assert position["telling"] and min(first) <= ONSET + 4
    before = [row for row in position["bins"] if row["below"] <= min(first)]
    assert all(row["abs_diff_max"] == 0 for row in before)
    assert "The absolute position says more" in printed.profile("index")["sentence"]


def test_a_fault_of_one_turn(tmp_path: Path) -> None:
    of = pair(22)
    turns = (of.index // 20).astype(np.int32)
    trainer = np.where(turns == 2, of.rollout + 10 * (of.trainer - of.rollout), of.trainer)
    printed = analyze(write(tmp_path, of.rollout, trainer, of.limits, turn_ids=turns))
    assert "Where: Turn 2: mean |Δ| is" in printed.text


@pytest.mark.parametrize("label", ["rank", "replica", "environment"])
def test_one_worker_that_is_wrong(label: str, tmp_path: Path) -> None:
    of = pair(23, sequences=32)
    worker = np.arange(32, dtype=np.int32) % 4
    sick = worker[of.sequence] == 3
    trainer = np.where(sick, of.rollout + 8 * (of.trainer - of.rollout), of.trainer)
    printed = analyze(write(tmp_path, of.rollout, trainer, of.limits, BF16, **{label: worker}))
    profile = printed.profile(label)
    assert profile["sentence"].startswith(f"{label.capitalize()} 3: mean |Δ| is")
    assert profile["sentence"] in printed.text
    counts = np.bincount(worker[of.sequence])
    assert [row["tokens"] for row in profile["bins"]] == counts.tolist()
