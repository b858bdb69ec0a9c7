"""Templates for Ray: each option goes through Ray's own parser, each command through ours."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from driftscope_service.cli.main import build_app

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "deploy" / "ray"
PATIENCE_S = 120.0
#: Stands in for `ray`: parses what it is given as Ray does, and prints it instead of sending it.
ONLY_PARSE = """
import json, sys
from ray.dashboard.modules.job.cli import submit
from ray.runtime_env import RuntimeEnv
import yaml
assert sys.argv[1:3] == ["job", "submit"], sys.argv
given = submit.make_context("submit", sys.argv[3:]).params
RuntimeEnv(**yaml.safe_load(open(given["runtime_env"])))
print(json.dumps({key: value for key, value in given.items() if value is not None}))
"""
START_OPTIONS = """
import json
from ray.scripts.scripts import start
print(json.dumps([option for one in start.params for option in one.opts]))
"""
#: Fields of RayJob in the version v1 of KubeRay's API that the template may use.
RAY_JOB_FIELDS = {
    *("entrypoint", "entrypointNumCpus", "entrypointNumGpus", "runtimeEnvYAML", "submissionMode"),
    *("backoffLimit", "activeDeadlineSeconds", "shutdownAfterJobFinishes"),
    *("ttlSecondsAfterFinished", "submitterPodTemplate", "rayClusterSpec"),
}
GROUP_FIELDS = {
    *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
}


@pytest.fixture
def submit(tmp_path: Path) -> Any:
    """deploy/ray/submit.sh with a `ray` that only parses; what Ray understood."""
    ray = tmp_path / "ray"
    ray.write_text(f"#!{sys.executable}\n{ONLY_PARSE}")
    ray.chmod(0o755)

    def run(*command: str, **variables: str) -> tuple[int, dict[str, Any], str]:
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        done = subprocess.run(
            [TEMPLATES / "submit.sh", *command],
            env={**os.environ, "PATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        understood = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        return done.returncode, understood, done.stderr

    return run


def test_ray_understands_the_submission(submit: Any) -> None:
    command = ["driftscope", "probe", "paired", "--model", "smollm2-135m", "--fail-on", "kl_k3>1"]
    code, understood, errors = submit(*command, GPUS="1")
    assert code == 0, errors
    assert understood["entrypoint"] == command
    assert (understood["entrypoint_num_cpus"], understood["entrypoint_num_gpus"]) == (4, 1)


def test_a_wrong_option_would_be_noticed(submit: Any) -> None:
    """The planted fault of the check itself."""
    code, _, errors = submit("driftscope", GPUS="many")
    assert code != 0 and "many" in errors


def test_the_commands_in_the_templates_are_ours() -> None:
    script = (TEMPLATES / "submit.sh").read_text()
    shown = [line for line in script.splitlines() if "submit.sh driftscope" in line]
    assert len(shown) == 2
    for line in shown:
        parse(line.partition("submit.sh ")[2])
    parse(ray_job()["spec"]["entrypoint"])
    with pytest.raises(Exception, match="--modell"):
        parse("driftscope probe paired --modell smollm2-135m")


def parse(command: str) -> None:
    """Raises for an unknown command, option or value."""
    name, *words = shlex.split(command)
    assert name == "driftscope"
    found: Any = get_command(build_app())
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


def ray_job() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((TEMPLATES / "rayjob.yaml").read_text())
    return job


def test_the_ray_job_has_the_shape_that_kuberay_documents() -> None:
    job = ray_job()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec.keys() <= RAY_JOB_FIELDS
    assert isinstance(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"], dict)
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    assert all(group.keys() <= GROUP_FIELDS for group in groups)
    options = start_options()
    for group in groups:
        for name, value in group["rayStartParams"].items():
            assert f"--{name}" in options and isinstance(value, str), name


def start_options() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", START_OPTIONS],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    options: list[str] = json.loads(done.stdout.splitlines()[-1])
    return options


def test_every_container_has_the_token_and_none_has_it_written_down() -> None:
    spec = ray_job()["spec"]
    cluster = spec["rayClusterSpec"]
    templates = [
        spec["submitterPodTemplate"],
        cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ]
    containers = [one for template in templates for one in template["spec"]["containers"]]
    assert len(containers) == 3
    for container in containers:
        variables = {entry["name"]: entry for entry in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert "value" not in variables["RAY_AUTH_TOKEN"]
