"""Findings that a child process tells one by one: lines of JSON in a file of its work folder.

{"began": n} when unit n is begun, {"done": n, …} with what it gave; units in order, from 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from driftscope_probes.progress import Progress, ProgressSink

FILE = "findings.jsonl"


class FindingTeller:
    """The child's side. Every line is followed by progress, at which the parent looks."""

    def __init__(self, workdir: Path, units: int, progress: ProgressSink) -> None:
        self._file = (workdir / FILE).open("a", encoding="utf-8")
        self._units, self._progress = units, progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()

    def began(self, number: int, stage: str) -> None:
        self._line({"began": number}, number, stage)

    def done(self, number: int, stage: str, found: Mapping[str, Any]) -> None:
        self._line({"done": number, **found}, number + 1, stage)

    def _line(self, line: Mapping[str, Any], finished: int, stage: str) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        self._progress(Progress(stage, finished / self._units))


class FindingLines:
    """The parent's side: what has been added since the last look; a line counts when whole."""

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / FILE
        self._at = 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                yield json.loads(line)
