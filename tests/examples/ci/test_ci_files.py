"""The CI files of examples/ci: read by the schema of their kind, and every script of them run."""

from __future__ import annotations

import json
import os
import re
import runpy
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from safetensors.numpy import save_file
from typer.core import TyperGroup

from driftscope_service.cli.main import app_of
from driftscope_service.experiments.paired.command import request_of

ROOT = Path(__file__).parents[3]
CI = ROOT / "examples" / "ci"
ACTION, WORKFLOW, GITLAB = (
    CI / "github/action.yml",
    CI / "github/workflow.yml",
    CI / "gitlab-ci.yml",
)
SCHEMAS = {
    ACTION: ("vendor.github-actions", "using: composite", "using: composit"),
    WORKFLOW: ("vendor.github-workflows", "runs-on:", "run-on:"),
    GITLAB: ("vendor.gitlab-ci", "when: always", "when: alway"),
}
#: What a test of the user's leaves: a step that agrees by rounding, and one from other weights.
TRAIN = """
import sys, pathlib, shutil
folder = pathlib.Path(sys.argv[1]); folder.mkdir()
for name in ("1", "2"):
    shutil.copy(pathlib.Path(__file__).with_name(f"{name}.safetensors"), folder)
"""


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def check(schema: str, path: Path) -> int:
    pytest.importorskip("check_jsonschema")
    command = ["-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run([sys.executable, *command], capture_output=True, timeout=120).returncode


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_its_kind_takes_the_file_and_would_refuse_a_misspelt_one(
    path: Path, tmp_path: Path
) -> None:
    schema, right, wrong = SCHEMAS[path]
    assert check(schema, path) == 0
    text = path.read_text(encoding="utf-8")
    misspelt = tmp_path / path.name
    misspelt.write_text(text.replace(right, wrong), encoding="utf-8")
    assert right in text and check(schema, misspelt) == 1


def test_actions_are_pinned_and_the_workflow_may_only_read() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    for action in re.findall(r"uses: (.+)", text):
        pinned = r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/actions/driftscope-gate"
        assert re.fullmatch(pinned, action), action
    assert load(WORKFLOW)["permissions"] == {"contents": "read"}
    # Within a script an expression would be run as part of it.
    scripts = [step["run"] for step in steps(load(ACTION)["runs"])]
    assert scripts and not any("${{" in script for script in scripts)


def steps(job: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (step for step in job["steps"] if "run" in step)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of the user's, and `driftscope` on the path as an installation has it."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "driftscope"
    main = "from driftscope_service.cli.main import main; main()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{main}" "$@"\n', encoding="utf-8")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "train_two_steps.py").write_text(TRAIN, encoding="utf-8")
    generator = np.random.default_rng(3)
    trainer = -generator.exponential(1.0, 400).astype(np.float32)
    limits = np.arange(0, 401, 100)
    for name, size in (("1", 0.01), ("2", 0.8)):
        rollout = trainer + generator.normal(0.0, size, 400).astype(np.float32)
        sides = {"rollout_logprobs": np.minimum(rollout, 0), "trainer_logprobs": trainer}
        save_file({**sides, "cu_seqlens": limits}, tests / f"{name}.safetensors",
                  {"rollout_dtype": "bf16", "trainer_dtype": "bf16"})  # fmt: skip
    return tmp_path


def bash(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """As a GitHub runner runs `shell: bash`; GitLab's runner has the same two options."""
    roots = os.pathsep.join(str(ROOT / root) for root in ("service", "probes", "kernels"))
    path = os.pathsep.join((str(folder / "bin"), str(Path(sys.executable).parent), os.defpath))
    inherited = os.environ.get("PYTHONPATH", "")
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={
            **{**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join((roots, inherited))},
            **{"GITHUB_STEP_SUMMARY": str(folder / "summary.md"), **variables},
        },
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_the_action_judges_what_a_job_left(checkout: Path) -> None:
    job = load(WORKFLOW)["jobs"]["trainer"]
    for step in steps(job):
        done = bash(step["run"], checkout)
        assert done.returncode == 0, done.stderr
    (used,) = [step["with"] for step in job["steps"] if step.get("name") == "Gate"]
    inputs = {name: one.get("default") for name, one in load(ACTION)["inputs"].items()} | used
    install, gate = steps(load(ACTION)["runs"])
    assert bash(install["run"], checkout, REQUIREMENT=inputs["requirement"]).returncode == 0
    asked = {name.upper(): str(value) for name, value in inputs.items()}
    done = bash(gate["run"], checkout, **asked)
    assert done.returncode == 1, done.stderr
    assert "::error title=driftscope::steps/2.safetensors: fail-on verdict>=bug_like" in done.stdout
    first, second = (checkout / "summary.md").read_text(encoding="utf-8").splitlines()
    assert first == "- steps/1.safetensors: passed"
    assert second.startswith(
        "- steps/2.safetensors: fail-on verdict>=bug_like: verdict is bug_like"
    )
    report = json.loads((checkout / "driftscope-reports" / "2.json").read_text(encoding="utf-8"))
    assert report["gate"]["passed"] is False

    nothing = bash(gate["run"], checkout, **{**asked, "FILES": "none/*.json"})
    assert nothing.returncode == 2 and "no file matches none/*.json" in nothing.stdout


@pytest.mark.parametrize(("file", "code"), [("steps/1.safetensors", 0), ("steps/9.json", 2)])
def test_the_job_of_gitlab_runs(checkout: Path, file: str, code: int) -> None:
    job = load(GITLAB)["logprobs"]
    variables = {**job["variables"], "STEP_FILE": file}
    done = bash("\n".join(job["script"]), checkout, **variables)
    assert done.returncode == code, done.stderr
    if code == 0:
        (kept,) = job["artifacts"]["paths"]
        gate = json.loads((checkout / kept).read_text(encoding="utf-8"))["gate"]
        assert gate == {"passed": True, "rules": gate["rules"], "held": []} and gate["rules"]


def test_the_job_of_an_engine_asks_for_a_probe(checkout: Path) -> None:
    """The script runs; what it calls is read as the command reads it, and not carried out, since
    tests of the command do that."""
    asked = checkout / "asked"
    command = checkout / "bin" / "driftscope"
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {asked}\n', encoding="utf-8")
    job = load(WORKFLOW)["jobs"]["engine"]
    for step in steps(job):
        assert bash(step["run"], checkout, **job["env"]).returncode == 0
    group, name, *words = asked.read_text(encoding="utf-8").splitlines()
    app = typer.main.get_command(app_of((group, name)))
    assert isinstance(app, TyperGroup)
    probe = app.commands[group]
    assert isinstance(probe, TyperGroup)
    options = probe.commands[name].make_context(name, words).params
    request = request_of(options)
    assert (request.model, request.engine.kind) == ("smollm2-135m", "vllm")
    assert request.engine_dtypes == request.trainer_dtypes == ["bf16"]
    assert str(options["out"]) == job["steps"][-1]["with"]["path"]
    assert [rule.text for rule in options["fail_on"]] == ["verdict>=bug_like", "abs_diff_mean>0.05"]


def test_the_test_of_the_examples_passes() -> None:
    runpy.run_path(str(CI / "test_logprobs.py"))["test_the_engine_and_the_trainer_agree"]()


def test_every_ci_file_is_named_in_the_page() -> None:
    page = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    for path in (*SCHEMAS, CI / "test_logprobs.py"):
        assert f"examples/ci/{path.relative_to(CI)}" in page
