"""Every example, run as a reader runs it; those that push, against the service as it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOTS = ("service", "probes", "kernels")
COMMAND = "from driftscope_service.cli.main import main; main()"


def python(*arguments: str, folder: Path, url: str = "") -> str:
    roots = os.pathsep.join(str(EXAMPLES.parent / root) for root in ROOTS)
    environment = {**os.environ, "PYTHONPATH": roots, "DRIFTSCOPE_URL": url}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_offline_example_prints_what_the_command_prints(tmp_path: Path) -> None:
    printed = python(str(EXAMPLES / "analyze_offline.py"), folder=tmp_path)
    step = ("analyze", "step.safetensors", "--json")
    comparison = json.loads(python("-c", COMMAND, *step, folder=tmp_path))["comparison"]
    numbers = dict(line.split(" ")[:2] for line in printed.splitlines())
    assert len(numbers) == 5
    assert {name: comparison[name] for name in numbers} == {
        name: float(value) for name, value in numbers.items()
    }


def test_the_pushed_example_prints_the_answer(running_service: str, tmp_path: Path) -> None:
    printed = python(str(EXAMPLES / "push_step.py"), folder=tmp_path, url=running_service)
    assert float(printed.split()[2]) == pytest.approx(0.012, rel=1e-4)
    run = httpx.get(f"{running_service}/v1/runs/example-step").json()
    assert (run["state"], run["steps"]) == ("finished", 1)


def test_the_loop_pushes_every_step_and_learns(running_service: str, tmp_path: Path) -> None:
    script = str(EXAMPLES / "training_loop.py")
    *steps, last = python(script, "20", folder=tmp_path, url=running_service).splitlines()
    assert last == "pushed 20, failed 0, dropped 0"
    assert float(steps[-1].split()[-1]) > 2 * float(steps[0].split()[-1])
    run = httpx.get(f"{running_service}/v1/runs/example-loop").json()
    assert (run["state"], run["steps"]) == ("finished", 20)
    answer = httpx.get(f"{running_service}/v1/runs/example-loop/steps/19").json()
    assert 0 < answer["comparison"]["abs_diff_mean"] < 0.05


def test_the_stand_in_for_verls_batch_is_pushed(running_service: str, tmp_path: Path) -> None:
    script = str(EXAMPLES / "verl_batch.py")
    first, *numbers = python(script, folder=tmp_path, url=running_service).splitlines()
    assert first == "pushed 3, failed 0"
    told = dict(line.split(" ") for line in numbers)
    assert float(told["driftscope/abs_diff_mean"]) == pytest.approx(0.004, rel=0.1)
    assert float(told["driftscope/step"]) == 2
    run = httpx.get(f"{running_service}/v1/runs/example-verl").json()
    assert (run["state"], run["steps"], run["framework"]) == ("finished", 3, "verl")


@pytest.mark.slow  # importing TRL alone takes ten seconds
def test_trls_own_trainer_pushes_and_logs_our_numbers(running_service: str, tmp_path: Path) -> None:
    script = str(EXAMPLES / "trl_grpo.py")
    printed = python(script, "3", folder=tmp_path, url=running_service)
    assert "pushed 3, failed 0" in printed.splitlines()
    assert "driftscope/step 2" in printed.splitlines()
    run = httpx.get(f"{running_service}/v1/runs/example-trl").json()
    assert (run["state"], run["steps"]) == ("finished", 3)
    answer = httpx.get(f"{running_service}/v1/runs/example-trl/steps/2").json()
    assert answer["comparison"]["abs_diff_max"] < 1e-3  # the very model that is trained samples


@pytest.mark.slow
def test_the_tutorials_bug_is_found_and_named(running_service: str, tmp_path: Path) -> None:
    page = (EXAMPLES.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
    planted = page.partition("```python\n")[2].partition("```")[0]
    script = (EXAMPLES / "trl_grpo.py").read_text(encoding="utf-8")
    before, _, rest = script.partition("class Trainer(")
    _, _, after = rest.partition("    pass\n")
    (tmp_path / "my_run.py").write_text(before + planted + after, encoding="utf-8")
    python("my_run.py", "6", folder=tmp_path, url=running_service)
    diagnosis = httpx.get(f"{running_service}/v1/runs/example-trl/steps/5").json()["diagnosis"]
    assert diagnosis["verdict"] == "bug_like"
    first = diagnosis["causes"][0]
    assert (first["name"], first["confidence"] > 0.9) == ("post_softmax_scaling", True)
    assert diagnosis["sentence"].partition(" (")[0] in page
    assert first["remedy"] in page.replace("\n   ", " ")


def test_the_list_of_examples_is_complete() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{path.name}]({path.name})" in listed for path in EXAMPLES.glob("*.py"))
