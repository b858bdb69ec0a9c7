from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DRIFTSCOPE = Path(sys.executable).with_name("driftscope")
Paired = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _as_users_start_them(plain_starts: None) -> None:
    """Nothing here comes out of the nursery of the other tests."""


@pytest.fixture
def paired(tmp_path: Path) -> Paired:
    """`driftscope probe paired … --json` with one thread; what it prints, checked to succeed."""

    def run(*arguments: str, out: str = "report") -> dict[str, Any]:
        command = [str(DRIFTSCOPE), "probe", "paired", "--json", "--threads", "1"]
        done = subprocess.run(
            [*command, "--out", out, *arguments],
            cwd=tmp_path,
            env=dict(os.environ),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return run
