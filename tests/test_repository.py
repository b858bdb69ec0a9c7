"""What GitHub and pre-commit read, held to their schemas and to the Makefile."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").iterdir() if path.stem != "config")
WORKFLOW = GITHUB / "workflows" / "ci.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("schema", "path", "needed"),
    [
        ("github-workflows", WORKFLOW, "runs-on"),
        ("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml", "contact_links"),
        *(("github-issue-forms", form, "body") for form in FORMS),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_github_takes_it_and_would_refuse_a_misspelt_one(
    schema: str, path: Path, needed: str, tmp_path: Path
) -> None:
    misspelt = tmp_path / path.name
    misspelt.write_text(path.read_text(encoding="utf-8").replace(f"{needed}:", f"{needed}x:"))
    for file, expected in ((path, 0), (misspelt, 1)):
        command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert done.returncode == expected, done.stdout


def test_the_workflow_runs_what_everybody_runs_and_may_only_read() -> None:
    workflow = read(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == "bash .ci/run"
    assert any("scripts/budget.py" in s.get("run", "") and "SUMMARY" in s["run"] for s in steps)
    for action in re.findall(r"uses: (\S+)", WORKFLOW.read_text(encoding="utf-8")):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action


def test_continuous_integration_ends_with_the_tests() -> None:
    """Their closing line is the last one; the budget stands before it and may fail."""
    budget, tests = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-2:]
    assert "scripts/budget.py" in budget and budget.endswith("|| true")
    assert tests == "make test"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_each_form_asks_for_the_environment_with_a_command_that_works(form: Path) -> None:
    fields = {field["id"]: field for field in read(form)["body"]}
    asked = fields["environment"]["attributes"]["description"]
    (command,) = re.findall(r'^`python (-c "[^`]+)`$', asked, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], capture_output=True, text=True, check=True
    )
    assert all(f'"{name}"' in done.stdout for name in ("packages", "hardware", "variables"))


def test_the_hooks_run_the_lines_of_make_check() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^check:.*\n((?:\t.+\n)+)", makefile, re.MULTILINE)
    lines = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == lines
    for hook in local["hooks"]:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)


def test_every_page_names_the_same_address() -> None:
    home = PROJECT["urls"]["Homepage"]
    files = [*ROOT.glob("*.md"), *GITHUB.rglob("*.yml"), *(ROOT / "docs").rglob("*.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    ours = re.findall(r"https://github\.com/[\w-]+/driftscope\b", text)
    assert ours and {home} == set(ours)
    assert all(url.startswith(home) for url in PROJECT["urls"].values())


def test_the_classifiers_exist() -> None:
    known = pytest.importorskip("trove_classifiers").classifiers
    assert set(PROJECT["classifiers"]) <= set(known)
