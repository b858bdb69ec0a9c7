"""A whole diagnosis of a healthy tiny model: a real engine, a real trainer, nothing to explain."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from driftscope_probes.diagnose.report import DiagnoseReport
from driftscope_probes.diagnose.run import run_probe
from driftscope_probes.progress import discard

pytestmark = pytest.mark.slow  # engine and trainer processes


def test_a_healthy_model_is_at_the_floor_at_once(tmp_path: Path) -> None:
    asked = {
        "model": "tiny-random-llama",
        "prompts": 2,
        "sampling": {"max_tokens": 8},
        "engine": {"threads": 1},
        "trainer": {"threads": 1},
    }
    began = time.monotonic()
    made = run_probe({"kind": "diagnose", "request": asked}, tmp_path, discard)
    report = DiagnoseReport.read(json.loads(json.dumps(made)))
    assert report.verdict == "at_floor" and report.steps == [] and report.causes == []
    assert "nothing to explain" in report.sentence
    assert 0.0 < report.base.sigma < 2 * report.floor["sigma"] and report.base.tokens == 16
    assert any("driftscope floor" in note for note in report.notes)
    assert report.timing["total_s"] <= time.monotonic() - began
