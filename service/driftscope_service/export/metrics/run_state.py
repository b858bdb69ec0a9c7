"""What /metrics knows of active runs, read anew only where a run has a new step.

In: the database. Out: RunState per active run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from driftscope_probes.mismatch.limits import Precision, pair_precision
from driftscope_service.store.run_repository import Run
from driftscope_service.store.run_summaries import (
    ActiveRuns,
    LastStep,
    RunSummaries,
    StepTotals,
)

_NOTHING = StepTotals(0, 0, 0)


@dataclass(frozen=True, slots=True)
class RunState:
    run: Run
    precision: Precision
    totals: StepTotals
    step: StepState | None  # None: no step is complete


@dataclass(frozen=True, slots=True)
class StepState:
    """The highest complete step."""

    step: int
    received_at: datetime
    comparison: Mapping[str, Any]
    abs_diff_histogram: Mapping[str, Any] | None  # None: stored by a version without
    overflowed: frozenset[str]  # names of metrics beyond their limit without a finite value


@dataclass(frozen=True, slots=True)
class RunStates:
    active: ActiveRuns
    states: Sequence[RunState]  # by name of the run


class RunStateCache:
    """A complete step never changes, so that the number of steps tells one state from the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, RunState] = {}
        self._counted_to = 0  # number of the newest step in the totals of all known runs

    def read(self, connection: Connection, *, since: datetime, cap: int) -> RunStates:
        """As many queries for fifty runs as for one."""
        with self._lock:
            summaries = RunSummaries(connection)
            active = summaries.active(since, cap)
            self._refresh(summaries, active.runs)
            states = sorted(self._known.values(), key=lambda state: state.run.name)
            return RunStates(active, states)

    def _refresh(self, summaries: RunSummaries, active: Sequence[Run]) -> None:
        changed = [run for run in active if self._steps_of(run) != run.complete_steps]
        totals = self._totals(summaries, changed)
        last = summaries.last_steps([run.number for run in changed]) if changed else {}
        fresh = {}
        for run in active:
            known = self._known.get(run.number)
            if run.number in totals:
                fresh[run.number] = _state(run, last.get(run.number), totals[run.number])
            elif known is None or known.run != run:
                # Only what describes the run is new.
                fresh[run.number] = _described(run, known)
            else:
                fresh[run.number] = known
        self._known = fresh

    def _steps_of(self, run: Run) -> int:
        known = self._known.get(run.number)
        return 0 if known is None else known.run.complete_steps

    def _totals(self, summaries: RunSummaries, changed: Sequence[Run]) -> dict[int, StepTotals]:
        """Of a run that is known, only the steps that came since are counted."""
        if not changed:
            return {}
        known = [run.number for run in changed if run.number in self._known]
        new = [run.number for run in changed if run.number not in self._known]
        added = summaries.totals(known, after=self._counted_to) if known else {}
        totals = {
            number: self._known[number].totals + added.get(number, _NOTHING) for number in known
        }
        if new:
            totals |= {number: _NOTHING for number in new} | summaries.totals(new)
        self._counted_to = summaries.newest_step_number()
        return totals


def _described(run: Run, known: RunState | None) -> RunState:
    if known is None:
        return RunState(run, pair_precision(run.rollout_dtype, run.trainer_dtype), _NOTHING, None)
    return RunState(run, known.precision, known.totals, known.step)


def _state(run: Run, last: LastStep | None, totals: StepTotals) -> RunState:
    assert last is not None, "a run with complete steps has a highest one"
    precision = pair_precision(
        last.metadata.get("rollout_dtype", run.rollout_dtype),
        last.metadata.get("trainer_dtype", run.trainer_dtype),
    )
    return RunState(run, precision, totals, _step_state(last))


def _step_state(last: LastStep) -> StepState:
    document = json.loads(last.analysis)
    crossed = document.get("crossed_limits", ())
    return StepState(
        step=last.step,
        received_at=last.received_at,
        comparison=document.get("comparison", {}),
        abs_diff_histogram=document.get("profiles", {}).get("abs_diff_histogram"),
        overflowed=frozenset(limit["metric"] for limit in crossed if limit["value"] is None),
    )
