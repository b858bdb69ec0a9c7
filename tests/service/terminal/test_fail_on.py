"""--fail-on: what a rule may be, when it holds, and how the command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file

from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.gates import Judged
from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.terminal.fail_on import parse_rule

SOURCES = Path(__file__).parents[3]
COMPARISON = {"kl_k3": 2e-3, "abs_diff_max": None, "tokens": 7,
              "undefined": {"abs_diff_max": "no token"}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("kl_k3>1e-3", True),
        ("kl_k3 > 1e-2", False),
        ("kl_k3<=0.002", True),
        ("tokens==7", True),
        ("tokens!=7", False),
        ("excess>=3", True),
        ("excess<3", False),
        ("verdict>=above_floor", True),
        ("verdict>=bug_like", False),
        ("verdict<bug_like", True),
        ("verdict==above_floor", True),
    ],
)
def test_rules_on_a_diagnosed_comparison(text: str, holds: bool) -> None:
    diagnosis = {"verdict": "above_floor", "excess": 3.5}
    held = parse_rule(text).holds(Judged(COMPARISON, diagnosis))
    assert (held is not None) is holds
    if held is not None:
        assert held.why.startswith(f"{text}: ")


NAMED = {"causes": [{"name": "norm_eps", "confidence": 0.9}], "unexplained": False}
UNSURE = {"causes": [{"name": "norm_eps", "confidence": 0.3}], "unexplained": True}
HEALTHY: dict[str, Any] = {"causes": [], "unexplained": False}


@pytest.mark.parametrize(
    ("text", "named", "unsure", "healthy"),
    [
        ("cause==norm_eps", True, False, False),
        ("cause=norm_eps", True, False, False),
        ("cause == unexplained", False, True, False),
        ("cause!=norm_eps", False, True, False),
        ("cause!=off_by_one", True, True, False),
    ],
)
def test_rules_on_causes(text: str, named: bool, unsure: bool, healthy: bool) -> None:
    rule = parse_rule(text)
    found = [rule.holds(Judged({}, one)) is not None for one in (NAMED, UNSURE, HEALTHY)]
    assert found == [named, unsure, healthy]
    assert rule.holds(Judged({}, None)) is not None  # cannot be shown to be fine


def test_every_cause_may_be_named() -> None:
    for name in BY_NAME:
        assert parse_rule(f"cause=={name}").bound == name


def test_verdicts_are_ordered_and_what_cannot_be_compared_is_worst() -> None:
    rule = parse_rule("verdict>=bug_like")
    held = [word for word in COMPARISON_RANK if rule.holds(Judged({}, {"verdict": word}))]
    assert held == ["bug_like", "not_comparable"]
    assert list(COMPARISON_RANK) == [
        *("bitwise_equal", "at_floor", "above_floor"),
        *("bug_like", "not_comparable"),
    ]


@pytest.mark.parametrize("text", ["abs_diff_max>1", "lag_max>1", "excess>1", "verdict>=bug_like"])
def test_what_has_no_value_is_not_taken_for_fine(text: str) -> None:
    held = parse_rule(text).holds(Judged(COMPARISON, None))
    assert held is not None and held.value is None and "has no value" in held.why
    if text.startswith("abs_diff_max"):
        assert "no token" in held.why


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kl_k3", "is not a rule"),
        ("kl_k3=>1", "is not a rule"),
        ("kl_k4>1", "did you mean kl_k"),
        ("kl_k3>high", "'high' in 'kl_k3>high' is not a number"),
        ("kl_k3>nan", "is not a number"),
        ("verdict>=bad", "bitwise_equal, at_floor, above_floor, bug_like, not_comparable"),
        ("", "is not a rule"),
        ("cause==stale_engine", "did you mean stale_engine_weights"),
        ("cause>norm_eps", "causes have no order"),
        ("b.kl_k3>1", "belong to `driftscope compare`"),
    ],
)
def test_a_bad_rule_is_refused_with_what_is_accepted(text: str, told: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        parse_rule(text)
    assert told in refused.value.message
    assert "use NAME OP NUMBER or verdict OP WORD" in refused.value.message


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = "from driftscope_service.cli.main import main; main()"
    roots = os.pathsep.join(str(SOURCES / root) for root in ("service", "probes", "kernels"))
    return subprocess.run(
        [sys.executable, "-c", command, "analyze", "step.safetensors", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": roots, "COLUMNS": "200"}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rollout = np.linspace(-3, -0.1, 40).astype(np.float32)
    sides: dict[str, Any] = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout - np.float32(0.01),
        "cu_seqlens": np.array([0, 40]),
    }
    save_file(sides, tmp_path / "step.safetensors")
    return tmp_path


def test_the_command_ends_with_one_and_its_output_stays(folder: Path) -> None:
    fine = analyze(folder, "--json", "--fail-on", "abs_diff_mean>1")
    assert (fine.returncode, fine.stderr) == (0, "")
    rules = ("--fail-on", "abs_diff_mean>1e-3", "--fail-on", "abs_diff_mean>1")
    failed = analyze(folder, "--json", *rules)
    assert failed.returncode == 1
    told, passed = json.loads(failed.stdout), json.loads(fine.stdout)
    assert passed.pop("gate") == {"passed": True, "rules": ["abs_diff_mean>1"], "held": []}
    outcome = told.pop("gate")
    assert (told, outcome["rules"]) == (passed, ["abs_diff_mean>1e-3", "abs_diff_mean>1"])
    (held,) = outcome["held"]
    assert held["rule"] == "abs_diff_mean>1e-3" and held["value"] == pytest.approx(0.01, rel=1e-3)
    (line,) = failed.stderr.splitlines()
    assert line.startswith("fail-on abs_diff_mean>1e-3: abs_diff_mean is 0.0")


def test_a_bad_rule_ends_with_two_before_anything_is_read(folder: Path) -> None:
    refused = analyze(folder, "--fail-on", "verdict>=bad")
    assert refused.returncode == 2 and refused.stdout == ""
    assert "not_comparable" in refused.stderr
