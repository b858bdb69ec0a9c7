"""Python in processes of their own: a module gets a request and leaves its results in files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_CHARACTERS = 2000


class ProcessError(RuntimeError):
    """A process ended without results."""


class PythonProcess:
    """`python -m module REQUEST RESULTS`, with the import path of this process."""

    def __init__(
        self, module: str, request: Any, results: Path, environment: Mapping[str, str]
    ) -> None:
        self.results = results
        asked = results.with_suffix(".request.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(asked), str(results)],
            env={**environment, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, name: str, timeout_s: float) -> Path:
        """The file of results. Raises ProcessError, in which `name` says what ended."""
        output, _ = self._process.communicate(timeout=timeout_s)
        if self._process.returncode != 0:
            raise ProcessError(
                f"{name} ended with {self._process.returncode}: " + output[-LOG_CHARACTERS:].strip()
            )
        return self.results

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
