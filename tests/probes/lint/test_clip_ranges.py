"""Narrow clip ranges: a fault where tokens are clipped, usual where a picture's steps are."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.lint.base import lint
from driftscope_probes.lint.readers.registry import read_paths
from driftscope_probes.lint.rules.registry import ALL_RULES

from .recipes import verl

RULE = "clip-range-below-rounding"
NARROW = "actor_rollout_ref.actor.clip_ratio=1e-5"


@pytest.mark.parametrize(("engine", "found"), [("vllm", True), ("vllm_omni", False)])
def test_of_tokens_alone(engine: str, found: bool, tmp_path: Path) -> None:
    [(name, content)] = verl(NARROW, f"actor_rollout_ref.rollout.name={engine}").items()
    (tmp_path / name).write_text(content, encoding="utf-8")
    findings = lint(read_paths([tmp_path / name]), ALL_RULES)
    assert (RULE in {one.rule for one in findings}) == found
