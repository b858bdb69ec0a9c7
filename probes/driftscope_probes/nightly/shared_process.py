"""Items that share a child process: time budget, findings one by one, and what a crash leaves."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftscope_probes.children import ChildProcess, ExplainCrash
from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.nightly.item import Finding, Item, not_run
from driftscope_probes.progress import Progress, ProgressSink, Told


class OutOfTime(Exception):
    """The budget is used up."""


class Budget:
    """Starts when created; `spent_s` is what an interrupted start has already used."""

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
        """Around `child.wait()`: end the child when time runs out. Raises OutOfTime."""
        timer = threading.Timer(max(0.0, self.left_s), child.cancel)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Cancelled as error:
            raise OutOfTime from error
        finally:
            timer.cancel()


@dataclass(frozen=True, slots=True)
class FindingTeller:
    """The child's side."""

    units: int
    progress: ProgressSink

    def began(self, number: int, stage: str) -> None:
        self.progress(Told(stage, number / self.units, told={"began": number}))

    def done(self, number: int, stage: str, finding: Mapping[str, Any]) -> None:
        self.progress(Told(stage, (number + 1) / self.units, told={"done": number, **finding}))


Record = Callable[[Item, Finding], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """What the child does in one go, and the items that it covers."""

    spec: Mapping[str, Any]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class SharedWork:
    """`module` gets {"units": specs, **request} and tells its findings through a FindingTeller."""

    module: str
    explain_crash: ExplainCrash
    request: Mapping[str, Any]
    units: tuple[Unit, ...]
    read: Callable[[Item, Mapping[str, Any]], Finding]  # from the child's report


def run_shared(work: SharedWork, record: Record, progress: ProgressSink, budget: Budget) -> None:
    """Raises OutOfTime after recording the findings so far."""
    left = list(work.units)
    while left:
        budget.check()
        attempt = _Attempt(work, left, record, progress)
        error = attempt.run(budget)
        if error is None:
            assert attempt.done == len(left), f"{work.module} left out units"
            return
        # A crash before the first unit is no single unit's fault and would recur for each.
        first, last = attempt.done, attempt.began if attempt.began else len(left)
        for unit in left[first:last]:
            for item in unit.items:
                record(item, not_run(item, error.message))
        left = left[max(first, last) :]


class _Attempt:
    """One process and what it has reported. Units run in order."""

    def __init__(
        self, work: SharedWork, units: Sequence[Unit], record: Record, progress: ProgressSink
    ) -> None:
        self._work, self._units, self._record, self._progress = work, units, record, progress
        self.began = 0  # units, including the one in progress
        self.done = 0

    def run(self, budget: Budget) -> ProbeError | None:
        request = {**self._work.request, "units": [dict(unit.spec) for unit in self._units]}
        with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
            child = ChildProcess(
                *(self._work.module, request, Path(folder)),
                explain_crash=self._work.explain_crash,
                on_progress=self._hear,
                new_session=True,
            )
            try:
                with budget.stopping(child):
                    child.wait()
            except ProbeError as error:
                return error
        return None

    def _hear(self, step: Progress) -> None:
        if isinstance(step, Told):
            self._take(step.told)
        self._progress(step)

    def _take(self, told: Mapping[str, Any]) -> None:
        if "began" in told:
            self.began = told["began"] + 1
            return
        unit = self._units[told["done"]]
        for item in unit.items:
            finding = self._work.read(item, told)
            # Items that share a unit are not timed separately: each gets its fraction.
            self._record(item, replace(finding, seconds=finding.seconds / len(unit.items)))
        self.done = told["done"] + 1
