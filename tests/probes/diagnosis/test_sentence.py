"""The first sentence does not contradict the number that it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from driftscope_probes.analysis import analyze_step
from driftscope_probes.push import read_step


def sentence(tmp_path: Path, offset: float) -> str:
    draw = np.random.default_rng(0)
    rollout = [(-draw.exponential(1.0, 40)).tolist() for _ in range(4)]
    step = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": [[value + offset for value in row] for row in rollout],
        "metadata": {"rollout_dtype": "bf16", "trainer_dtype": "bf16"},
    }
    (tmp_path / "step.json").write_text(json.dumps(step))
    return analyze_step(read_step(tmp_path / "step.json")).diagnosis.sentence


def test_a_small_offset_is_not_called_more_than_the_floor(tmp_path: Path) -> None:
    said = sentence(tmp_path, 1e-3)
    assert said.startswith("Small, but not of the shape that rounding has, and unexplained: 0.")
    assert "Above the floor" not in said
