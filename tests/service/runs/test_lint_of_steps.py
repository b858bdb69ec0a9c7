"""What a step's metadata are known for: in the answer, when it is asked for again, on its page."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from driftscope_service.cli.main import build_app

SPECULATIVE = {"model": "m", "rollout_dtype": "bf16", "speculative_config": "eagle3"}


def test_findings_come_with_the_answer_and_stay_with_the_step(pushing: Any) -> None:
    answer = pushing.push(pushing.body(metadata=SPECULATIVE))
    (found,) = answer.json()["lint"]
    assert found["rule"] == "speculative-decoding" and found["severity"] == "warning"
    assert found["where"] == "metadata: speculative_config" and found["value"] == "eagle3"
    again = pushing.client.get("/v1/runs/r/steps/1").json()
    assert again["lint"] == [found]
    page = unescape(pushing.client.get("/runs/r/steps/1").text)
    told = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "What its settings are known to do 1 finding, most severe first: warning" in told
    assert found["why"] in told and found["remedy"] in told


def test_a_step_that_says_little_has_none(pushing: Any) -> None:
    answer = pushing.push(pushing.body(metadata={"model": "m"}))
    assert answer.json()["lint"] == []
    assert "known to do" not in pushing.client.get("/runs/r/steps/1").text


def test_the_terminal_tells_them_too(pushing: Any, tmp_path: Path) -> None:
    file = tmp_path / "step.safetensors"
    file.write_bytes(pushing.body(metadata=SPECULATIVE))
    done = CliRunner().invoke(build_app(), ["analyze", str(file)], env={"COLUMNS": "200"})
    assert "Warning: metadata: speculative_config = eagle3: " in done.stdout, done.output
    every = CliRunner().invoke(build_app(), ["analyze", str(file), "--all"])
    assert "warning  speculative-decoding\n  metadata: speculative_config = eagle3" in every.stdout
