"""The SkyPilot task: its scripts are bash; where SkyPilot is installed, its own schema accepts it.

SkyPilot's requirements do not go with ours, so it is looked for in an environment of its own:
SKYPILOT_PYTHON names the interpreter.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

TASK = Path(__file__).parents[2] / "deploy/skypilot/driftscope.yaml"
#: Which fields a task and its resources have; and that a task is made of it, but for the names of
#: accelerators, which SkyPilot looks up in a catalogue that it downloads.
VALIDATION = """
import sys, jsonschema, sky, yaml
from sky.utils import schemas
task = yaml.safe_load(sys.stdin)
for schema, value in (
    (schemas.get_task_schema(), task), (schemas.get_resources_schema(), task["resources"]),
):
    jsonschema.Draft202012Validator(schema).validate(value)
del task["resources"]
sky.Task.from_yaml_config(task, env_overrides=[("MODEL", "model")])
"""


def task() -> dict[str, Any]:
    loaded = yaml.safe_load(TASK.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("part", ["setup", "run"])
def test_its_scripts_are_bash(part: str) -> None:
    done = subprocess.run(["bash", "-n"], input=task()[part], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_variable_of_the_scripts_is_declared() -> None:
    found = task()
    names = {*found["envs"], *found["secrets"]}
    assert names == {"MODEL", "PROMPTS", "TOKENS", "URL", "DRIFTSCOPE_API_KEY"}
    assert all(f"${name}" in found["run"] for name in found["envs"])
    # Without a default: a task without a model is refused, not run on some model.
    assert found["envs"]["MODEL"] is None


def faults(value: dict[str, Any], folder: Path) -> str:
    python = os.environ.get("SKYPILOT_PYTHON")
    if python is None:
        pytest.skip("SKYPILOT_PYTHON names no interpreter with skypilot (tested with 0.14.1)")
    done = subprocess.run(
        [python, "-c", VALIDATION], input=yaml.safe_dump(value), capture_output=True, text=True,
        env={**os.environ, "HOME": str(folder)}, cwd=TASK.parents[2], timeout=120,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.slow
def test_skypilot_accepts_it_and_refuses_planted_faults(tmp_path: Path) -> None:
    assert faults(task(), tmp_path) == ""
    assert "num_nods" in faults(task() | {"num_nods": 1}, tmp_path)
    misspelt = task()
    misspelt["resources"]["use_spott"] = True
    assert "use_spott" in faults(misspelt, tmp_path)
