"""`driftscope explain` as a user runs it: what is refused, two dumps, a real pair."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ...probes.explain.dumps.made import step, write

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "tiny-random-lama"], "tiny-random-llama"),
        (["--model", "m", "--phase", "training"], "'prefill' or 'decode'"),
        (["--model", "m", "--trainer-dtype", "int8"], "int8"),
        (["--model", "m", "--prompts", "none.txt"], "none.txt"),
        (["--model", "m", "--chunked-prefill-tokens", "3"], "greater than or equal to 16"),
        (["--model", "m", "--out", "."], "is a folder"),
        ([], "no model was given"),
        (["--model", "m", "--other-model", "n"], "--other-model was given without --engine-server"),
        (["--model", "m", "--budget", "9"], "--budget was given without --engine-server"),
        (["--model", "m", "--engine", "vllm-server"], "--engine-server URL"),
        (["--model", "m", "--engine-server", "no-address"], "http://127.0.0.1:8000"),
        (
            ["--model", "m", "--engine-server", "http://127.0.0.1:1", "--phase", "decode"],
            "--phase was given with --engine-server",
        ),
        (["--model", "tiny-random-llama", "--engine-server", "http://127.0.0.1:1"], "/v1/models"),
        (["--dumps", "a", "b"], "a is not a folder"),
        (["--dumps", "a", "b", "--model", "m"], "--model was given with --dumps"),
    ],
)
def test_what_is_refused(driftscope: Run, arguments: list[str], told: str) -> None:
    done = driftscope("explain", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_dumps_are_compared_and_kept(driftscope: Run, tmp_path: Path) -> None:
    made = step(torch.bfloat16)
    write(tmp_path / "a", made)
    made["1.q_proj"][3, 2] += 0.5
    write(tmp_path / "b", made)
    done = driftscope("explain", "--dumps", "a", "b", "--out", "page/report.html")
    assert done.returncode == 1, done.stderr
    assert "layer 1 q_proj, token 3" in done.stdout and "shows it at /probes/" in done.stderr
    assert done.stdout.endswith("Report: page/report.html\n")
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "layer 1 q_proj, token 3" in page
    same = driftscope("explain", "--dumps", "a", "a", "--json", "--no-store")
    assert same.returncode == 0 and json.loads(same.stdout)["verdict"] == "equal", same.stderr


@pytest.mark.slow
def test_a_real_pair(driftscope: Run, tmp_path: Path) -> None:
    """A real engine and a real trainer; the report is kept for the pages."""
    small = ("--prompts", "1", "--max-tokens", "4", "--threads", "1", "--no-backward")
    done = driftscope("explain", "--model", "tiny-random-llama", *small, "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "explain" and not report["equal"]
    assert {"rotary", "attention", "residual_norm"} == {op["op"] for op in report["ops"]}
    assert all(check["equal"] for check in report["alignment"]["checks"])
    assert "loading the engine" in done.stderr
    assert len(list(tmp_path.glob("driftscope-data/reports/*/report.json"))) == 1
