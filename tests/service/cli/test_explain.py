"""`driftscope explain` as a user runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "tiny-random-lama"], "tiny-random-llama"),
        (["--model", "m", "--phase", "training"], "'prefill' or 'decode'"),
        (["--model", "m", "--trainer-dtype", "int8"], "int8"),
        (["--model", "m", "--prompts", "none.txt"], "none.txt"),
        (["--model", "m", "--chunked-prefill-tokens", "3"], "greater than or equal to 16"),
        (["--model", "m", "--out", "."], "is a folder"),
    ],
)
def test_what_is_refused(driftscope: Run, arguments: list[str], told: str) -> None:
    done = driftscope("explain", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr
