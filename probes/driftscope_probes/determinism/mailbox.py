"""Numbered questions and answers between two processes, as JSON files of one folder.

A file appears under its name only when it is whole. Who asks waits for the answer's file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Far below the time of one engine step, and no load worth the name.
POLL_S = 0.005


@dataclass(slots=True)
class Mailbox:
    """One side of it; both count along. The one mutable value is the number of the next letter."""

    folder: Path
    number: int = 0

    def ask(self, question: Mapping[str, Any], still_there: Callable[[], bool]) -> dict[str, Any]:
        """The answer. Raises ConnectionError when `still_there` says no and there is none."""
        number = self._next()
        _write(self._question(number), question)
        answer = self._answer(number)
        while not answer.exists():
            # Asked first: an answer may have been left on the way out.
            if not still_there() and not answer.exists():
                raise ConnectionError("the other side ended without an answer")
            time.sleep(POLL_S)
        return _take(answer)

    def serve(self, reply: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Answer for ever; who asks ends this process."""
        while True:
            number = self._next()
            question = self._question(number)
            while not question.exists():
                time.sleep(POLL_S)
            _write(self._answer(number), reply(_take(question)))

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _question(self, number: int) -> Path:
        return self.folder / f"question-{number}.json"

    def _answer(self, number: int) -> Path:
        return self.folder / f"answer-{number}.json"


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(dict(value)), encoding="utf-8")
    partial.replace(path)


def _take(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return value
