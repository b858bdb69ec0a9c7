"""`driftscope diagnose` as a user runs it: by hand, with results brought back, and a real run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_probes.diagnosis.controls.registry import CONTROLS

Run = Callable[..., subprocess.CompletedProcess[str]]


def write_step(path: Path, fault: float) -> None:
    random = np.random.default_rng(0)
    rollout = (-3.0 - random.gamma(2.0, 0.7, 4000)).astype(np.float32)
    tensors: dict[str, Any] = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout + random.normal(0, fault, 4000).astype(np.float32),
        "cu_seqlens": np.arange(0, 4001, 100),
    }
    metadata = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}
    save_file(tensors, path, metadata=metadata)


def test_without_a_model_it_says_what_to_run_by_hand(driftscope: Run, tmp_path: Path) -> None:
    write_step(tmp_path / "step.safetensors", 0.7)
    done = driftscope("diagnose", "step.safetensors", "--framework", "verl")
    assert done.returncode == 1, done.stderr
    assert "Controls for your own framework, best first" in done.stdout
    assert "verl: " in done.stdout and "trl: " not in done.stdout
    again = "driftscope diagnose step.safetensors --framework verl --control "
    assert f"Then: {again}" in done.stdout
    plain = json.loads(driftscope("diagnose", "step.safetensors", "--json").stdout)
    first = plain["controls"][0]
    assert f"{again}{first['name']}=clean" in done.stdout
    assert {"gain_bits", "how", "read", "splits"} <= first.keys() and first["how"]["any"]
    gains = [one["gain_bits"] for one in plain["controls"]]
    assert all(gain > 0 for gain in gains)


def test_results_are_taken_back(driftscope: Run, tmp_path: Path) -> None:
    write_step(tmp_path / "step.safetensors", 0.7)
    command = ("diagnose", "step.safetensors", "--json")
    cache = ("--control", "prefix_cache_off=clean")
    one = json.loads(driftscope(*command, *cache).stdout)
    assert [step["control"] for step in one["steps"]] == ["prefix_cache_off"]
    before = json.loads(driftscope(*command).stdout)["belief"]
    assert "stale_prefix_cache" not in [each["cause"] for each in before]
    assert "stale_prefix_cache" in [each["cause"] for each in one["belief"]]
    assert "prefix_cache_off" not in [each["name"] for each in one["controls"]]
    two = driftscope("diagnose", "step.safetensors", *cache, "--control", "decode_reprefill=dirty")
    assert two.returncode == 1
    assert "1. its outcome was given" in two.stdout
    assert "Causes: stale_prefix_cache" in two.stdout


def test_a_step_at_its_floor_is_no_finding(driftscope: Run, tmp_path: Path) -> None:
    write_step(tmp_path / "step.safetensors", 0.02)
    done = driftscope("diagnose", "step.safetensors")
    assert done.returncode == 0 and "Nothing has to be run." in done.stdout


def test_the_first_line_is_what_the_outcomes_say(driftscope: Run, tmp_path: Path) -> None:
    """Whatever the data said of a step at its floor."""
    write_step(tmp_path / "step.safetensors", 0.02)
    found = ("dropout_off=clean", "trainer_repeat=dirty", "reference_forward=dirty")
    given = [word for one in found for word in ("--control", one)]
    done = driftscope("diagnose", "step.safetensors", *given)
    assert done.returncode == 1
    assert done.stdout.startswith("The trainer scores with dropout switched on (dropout_active, ")


def test_all_controls_are_listed(driftscope: Run) -> None:
    done = driftscope("diagnose", "--controls")
    assert done.returncode == 0
    assert all(control.name in done.stdout for control in CONTROLS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "neither a step nor a model"),
        (["none.safetensors"], "none.safetensors"),
        (["step.safetensors", "--framework", "openrlhf"], "unknown framework 'openrlhf'"),
        (["step.safetensors", "--control", "prefix=clean"], "there is no control 'prefix'"),
        (["step.safetensors", "--control", "dropout_off=CLEAN"], "gives no outcome"),
        (["step.safetensors", "--older-model", "old"], "--older-model was given, and no --model"),
        (["step.safetensors", "--control", "eager=no"], "NAME=clean or NAME=dirty"),
        (["--model", "tiny-random-lama"], "tiny-random-llama"),
        (["--model", "m", "--budget", "0"], "greater than or equal to 1"),
        (["--model", "m", "--control", "eager=clean,eager=dirty"], "both clean and dirty"),
    ],
)
def test_what_is_refused(driftscope: Run, tmp_path: Path, arguments: list[str], told: str) -> None:
    write_step(tmp_path / "step.safetensors", 0.7)
    done = driftscope("diagnose", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_healthy_model_is_at_the_floor_at_once(driftscope: Run, tmp_path: Path) -> None:
    """A real engine and a real trainer; the report is kept for the pages."""
    small = ("--prompts", "2", "--max-tokens", "8", "--threads", "1")
    done = driftscope("diagnose", "--model", "tiny-random-llama", *small, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "at_floor" and report["steps"] == [] and report["causes"] == []
    assert "nothing to explain" in report["sentence"]
    assert 0.0 < report["base"]["sigma"] < 2 * report["floor"]["sigma"]
    assert report["base"]["tokens"] == 16
    assert "measuring the difference of the live pair" in done.stderr
    assert len(list(tmp_path.glob("driftscope-data/reports/*/report.json"))) == 1
