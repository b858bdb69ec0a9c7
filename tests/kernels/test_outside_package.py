"""A package of someone else offers a kernel by entry point; it is listed and checked like ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = "from driftscope_service.cli.main import main; main()"
EXAMPLE = ROOT / "examples" / "custom_kernel"


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """What `pip install` leaves: a module, and metadata beside it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    offered = project["entry-points"]["driftscope.kernels"]
    shutil.copy(EXAMPLE / "acme_kernels.py", tmp_path)
    info = tmp_path / "acme_kernels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kernels\nVersion: 1.0\n")
    lines = "".join(f"{name} = {place}\n" for name, place in offered.items())
    (info / "entry_points.txt").write_text(f"[driftscope.kernels]\n{lines}")
    return tmp_path


def _run(acme: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    roots = [str(acme), *(str(ROOT / root) for root in ("service", "probes", "kernels"))]
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "kernels", *arguments],
        cwd=acme,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_it_is_listed_checked_and_replayed(acme: Path) -> None:
    listed = _run(acme, "list", "--target", "acme", "--json")
    assert [k["implementation"] for k in json.loads(listed.stdout)["kernels"]] == ["half_split"]

    done = _run(acme, *"check --target acme --quick --threads 1 --json".split())
    assert done.returncode == 1, done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["target"], verdict["verdict"]) == ("acme", "REFUTED")

    spec = verdict["counterexample"]["replay"].split("'")[1]
    again = json.loads(_run(acme, "check", "--replay", spec, "--json").stdout)
    assert again["reproduced"] is True
    assert again["mismatch"]["difference"] == verdict["counterexample"]["difference"]
