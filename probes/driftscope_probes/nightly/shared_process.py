"""Items that share a process → a finding for each, recorded as soon as it stands.

A unit of work that ends the process costs its own items only: the next process goes on after it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftscope_probes.child_process import ChildProcess, ExplainCrash
from driftscope_probes.errors import ProbeError
from driftscope_probes.nightly.budget import Budget
from driftscope_probes.nightly.finding_lines import FindingLines
from driftscope_probes.nightly.item import Finding, Item, not_run
from driftscope_probes.progress import Progress, ProgressSink

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
