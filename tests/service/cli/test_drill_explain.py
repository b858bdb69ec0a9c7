"""`driftscope drill --explain` on one live pair: a bug of each side, and a healthy sample."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_planted_bugs_are_localised(driftscope: Run, tmp_path: Path) -> None:
    bugs = "weight,rotary_base,not_causal,dropout,cache_layout,attention_scale"
    page = tmp_path / "drill.md"
    chosen = ("--pair", "llama bf16 prefill", "--bug", bugs, "--healthy", "1")
    done = driftscope("drill", "--explain", *chosen, "--markdown", str(page), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["summary"]
    # One layer of the shared rotary, two of each other bug.
    assert summary["planted"] == 11 and summary["healthy"] == 1
    assert summary["right_op"] == summary["right_reason"] == 1.0
    assert summary["healthy_false_alarms"] == 0
    assert "| not causal | attention | mask | 2 | 2 | 2 |" in page.read_text(encoding="utf-8")
    assert len(json.loads(page.with_suffix(".json").read_text())["cases"]) == 12
