"""The `driftscope` command of these sources, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DRIFTSCOPE = Path(sys.executable).with_name("driftscope")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DRIFTSCOPE), *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def printed(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    """The object that `--json` prints, from a command that ended with `code`."""
    done = run(*arguments, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
