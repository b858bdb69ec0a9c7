"""What /metrics knows of active runs, read anew only where a run has a new step.

In: the database. Out: RunState per active run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from driftscope_probes.mismatch.limits import Precision, pair_precision
from driftscope_service.export.metrics.stored_analysis import StoredNumbers, stored_numbers
from driftscope_service.store.run_repository import Run
from driftscope_service.store.run_summaries import (
    ActiveRuns,
    LastStep,
    RunSummaries,
)


@dataclass(frozen=True, slots=True)
class RunState:
    run: Run
    precision: Precision
    step: StepState | None  # None: no step is complete


@dataclass(frozen=True, slots=True)
class StepState:
    """The highest complete step."""

    step: int
    received_at: datetime
    numbers: StoredNumbers


@dataclass(frozen=True, slots=True)
class RunStates:
    active: ActiveRuns
    states: Sequence[RunState]  # by name of the run


class RunStateCache:
    """A complete step never changes, so that the number of steps tells one state from the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, RunState] = {}

    def read(self, connection: Connection, *, since: datetime, cap: int) -> RunStates:
        """As many queries for fifty runs as for one."""
        with self._lock:
            summaries = RunSummaries(connection)
            active = summaries.active(since, cap)
            self._refresh(summaries, active.runs)
            states = sorted(self._known.values(), key=lambda state: state.run.name)
            return RunStates(active, states)

    def _refresh(self, summaries: RunSummaries, active: Sequence[Run]) -> None:
        changed = [run.number for run in active if self._steps_of(run) != run.complete_steps]
        last = summaries.last_steps(changed) if changed else {}
        fresh = {}
        for run in active:
            known = self._known.get(run.number)
            if run.number in last:
                fresh[run.number] = _state(run, last[run.number])
            elif known is None or known.run != run:
                # Only what describes the run is new.
                fresh[run.number] = _described(run, known)
            else:
                fresh[run.number] = known
        self._known = fresh

    def _steps_of(self, run: Run) -> int:
        known = self._known.get(run.number)
        return 0 if known is None else known.run.complete_steps


def _described(run: Run, known: RunState | None) -> RunState:
    if known is None:
        return RunState(run, pair_precision(run.rollout_dtype, run.trainer_dtype), None)
    return RunState(run, known.precision, known.step)


def _state(run: Run, last: LastStep) -> RunState:
    precision = pair_precision(
        last.metadata.get("rollout_dtype", run.rollout_dtype),
        last.metadata.get("trainer_dtype", run.trainer_dtype),
    )
    return RunState(
        run, precision, StepState(last.step, last.received_at, stored_numbers(last.analysis))
    )
