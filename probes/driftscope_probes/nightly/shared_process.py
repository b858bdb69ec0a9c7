"""Items that share a child process: time budget, findings line by line, and what a crash leaves."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from driftscope_probes.children import ChildProcess, ExplainCrash
from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.nightly.item import Finding, Item, not_run
from driftscope_probes.progress import Progress, ProgressSink


class OutOfTime(Exception):
    """The budget is used up."""


class Budget:
    """Counts from when it is made; `spent_s` is what an interrupted start has used already."""

    def __init__(self, seconds: float, spent_s: float = 0.0) -> None:
        self._end = time.monotonic() + seconds - spent_s

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raises OutOfTime."""
        if self.left_s <= 0:
            raise OutOfTime

    @contextmanager
    def stopping(self, child: ChildProcess) -> Iterator[None]:
        """Around `child.wait()`: end the child when the time is over. Raises OutOfTime."""
        timer = threading.Timer(max(0.0, self.left_s), child.cancel)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Cancelled as error:
            raise OutOfTime from error
        finally:
            timer.cancel()


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


Record = Callable[[Item, Finding], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """What the child does in one go, and the items that it answers."""

    spec: Mapping[str, Any]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class SharedWork:
    """`module` gets {"units": specs, **request} and tells its findings as `finding_lines` says."""

    module: str
    explain_crash: ExplainCrash
    request: Mapping[str, Any]
    units: tuple[Unit, ...]
    read: Callable[[Item, Mapping[str, Any]], Finding]  # of a line of the child, for an item


def run_shared(work: SharedWork, record: Record, progress: ProgressSink, budget: Budget) -> None:
    """Raises OutOfTime, with the findings so far recorded."""
    left = list(work.units)
    while left:
        budget.check()
        attempt = _Attempt(work, left, record, progress)
        error = attempt.run(budget)
        if error is None:
            assert attempt.done == len(left), f"{work.module} left out units"
            return
        # Before the first unit nothing points to one: the same would happen again for each.
        first, last = attempt.done, attempt.began if attempt.began else len(left)
        for unit in left[first:last]:
            for item in unit.items:
                record(item, not_run(item, error.message))
        left = left[max(first, last) :]


class _Attempt:
    """One process and what it has told. Units are done in order."""

    def __init__(
        self, work: SharedWork, units: Sequence[Unit], record: Record, progress: ProgressSink
    ) -> None:
        self._work, self._units, self._record, self._progress = work, units, record, progress
        self.began = 0  # units, the one included that is being done
        self.done = 0

    def run(self, budget: Budget) -> ProbeError | None:
        request = {**self._work.request, "units": [dict(unit.spec) for unit in self._units]}
        with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
            lines = FindingLines(Path(folder))

            def show(step: Progress) -> None:
                self._take(lines)
                self._progress(step)

            child = ChildProcess(
                *(self._work.module, request, Path(folder)),
                explain_crash=self._work.explain_crash,
                on_progress=show,
                new_session=True,
            )
            try:
                with budget.stopping(child):
                    child.wait()
            except ProbeError as error:
                return error
            finally:
                self._take(lines)
        return None

    def _take(self, lines: FindingLines) -> None:
        for line in lines.new():
            if "began" in line:
                self.began = line["began"] + 1
                continue
            unit = self._units[line["done"]]
            for item in unit.items:
                found = self._work.read(item, line)
                # What one unit answers together is not timed apart: each gets its share.
                self._record(item, replace(found, seconds=found.seconds / len(unit.items)))
            self.done = line["done"] + 1
