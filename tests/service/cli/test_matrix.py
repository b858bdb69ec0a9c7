"""`driftscope probe matrix` as a user runs it, with transformers as the engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = (
    *("--model", "tiny-random-llama", "--prompts", "2", "--max-tokens", "4", "--threads", "1"),
    *("--engine", "hf", "--trainer-dtypes", "fp32", "--no-store", "--json"),
)


@pytest.mark.slow
def test_an_instruction_set_and_an_interpreter_that_is_gone(driftscope: Run) -> None:
    done = driftscope(
        *("probe", "matrix", *SMALL, "--place", "here", "--place", "gone=/nowhere/python"),
        *("--variable", "plain:ATEN_CPU_CAPABILITY=default"),
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert [place["state"] for place in report["places"]] == ["ran", "failed", "ran"]
    assert report["classes"] == [["here"], ["plain"]]
    assert report["lint"] is not None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--place", "here=/x"), "as it is"),
        (("--variable", "x:PATH=1"), "not one that reports record"),
        (("--place", "here"), "1 places were named"),
        (("--trainer-dtypes", "bf17"), "unknown trainer mode"),
    ],
)
def test_what_is_refused(driftscope: Run, arguments: tuple[str, ...], told: str) -> None:
    done = driftscope("probe", "matrix", *SMALL, *arguments)
    assert done.returncode == 2 and told in " ".join(done.stderr.split())
