"""A module in a process of its own: its results, or what it said before it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from driftscope_kernels.check.process_axis import ProcessError, PythonProcess

MODULE = """
import json, sys, time
asked = json.load(open(sys.argv[1]))
if asked == "wait":
    time.sleep(60)
print("said before")
if asked == "fail":
    sys.exit(3)
json.dump([asked], open(sys.argv[2], "w"))
"""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "asked_module.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])
    return tmp_path / "results.json"


def start(request: object, results: Path) -> PythonProcess:
    return PythonProcess("asked_module", request, results, os.environ)


@pytest.mark.parametrize("request_", [{"a": [1, None]}, "ü", []])
def test_results_are_in_the_file(request_: object, results: Path) -> None:
    assert json.loads(start(request_, results).wait("it", 60.0).read_text()) == [request_]


def test_an_end_without_results_is_told(results: Path) -> None:
    with pytest.raises(ProcessError, match="^the check ended with 3: said before$"):
        start("fail", results).wait("the check", 60.0)


def test_one_that_takes_too_long_can_be_killed(results: Path) -> None:
    process = start("wait", results)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait("it", 0.05)
    process.kill()
    with pytest.raises(ProcessError, match="ended with -9"):
        process.wait("it", 60.0)
