"""What /metrics shows of the last step of every active run, read once per step."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from driftscope_kernels.on_policy.weights.recorded import of_metadata
from driftscope_probes.mismatch.thresholds import Precision, pair_precision
from driftscope_service.runs.store.runs import ActiveRuns, LastStep, Run, RunSummaries

_FIRST: Final = '{"comparison":'
_SECOND: Final = ',"diagnosis":'
_LAST: Final = ',"crossed_limits":'
_decoder = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class StoredNumbers:
    comparison: Mapping[str, Any]
    abs_diff_histogram: Mapping[str, Any] | None  # None: stored by a version without it
    overflowed: frozenset[str]  # names of metrics beyond their limit without a finite value
    diagnosis: DiagnosedNumbers | None = None  # None: stored by a version without it


@dataclass(frozen=True, slots=True)
class DiagnosedNumbers:
    verdict: str  # of COMPARISON_VERDICTS
    excess: float | None
    causes: Mapping[str, float]  # confidence above 0 by name
    unexplained: bool


def stored_numbers(analysis: bytes) -> StoredNumbers:
    text = analysis.decode()
    document = _both_ends(text)
    if document is None:
        document = json.loads(text)
    crossed = document.get("crossed_limits", ())
    return StoredNumbers(
        comparison=document.get("comparison", {}),
        abs_diff_histogram=document.get("profiles", {}).get("abs_diff_histogram"),
        overflowed=frozenset(limit["metric"] for limit in crossed if limit["value"] is None),
        diagnosis=_diagnosed(document.get("diagnosis")),
    )


def _diagnosed(stored: Mapping[str, Any] | None) -> DiagnosedNumbers | None:
    if stored is None:
        return None
    sure = {one["name"]: one["confidence"] for one in stored["causes"] if one["confidence"] > 0}
    return DiagnosedNumbers(stored["verdict"], stored["excess"], sure, stored["unexplained"])


def _both_ends(text: str) -> dict[str, Any] | None:
    """The first two members and those from `crossed_limits` on; None if the layout differs.

    What follows `_LAST` is an object to exactly the end of the text, so that it cannot have begun
    deeper inside; nor within a string, where quotes are escaped.
    """
    start = text.rfind(_LAST)
    if start < 0 or not text.startswith(_FIRST):
        return None
    try:
        comparison, end = _decoder.raw_decode(text, len(_FIRST))
        diagnosis = None
        if text.startswith(_SECOND, end):
            diagnosis, _ = _decoder.raw_decode(text, end + len(_SECOND))
        rest: dict[str, Any] = json.loads("{" + text[start + 1 :])
    except json.JSONDecodeError:
        return None
    if "profiles" not in rest:
        return None
    return {"comparison": comparison, "diagnosis": diagnosis, **rest}


@dataclass(frozen=True, slots=True)
class ExportedRun:
    run: Run
    precision: Precision
    step: StepState | None  # None: no step is complete


@dataclass(frozen=True, slots=True)
class StepState:
    """The highest complete step."""

    step: int
    received_at: datetime
    numbers: StoredNumbers
    weights_match: bool | None = None  # None: no digests were pushed with it


@dataclass(frozen=True, slots=True)
class RunStates:
    active: ActiveRuns
    states: Sequence[ExportedRun]  # by name of the run


class RunStateCache:
    """A complete step never changes: the revision of the series tells one state from the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, ExportedRun] = {}

    def read(self, connection: Connection, *, since: datetime, cap: int) -> RunStates:
        """As many queries for fifty runs as for one."""
        with self._lock:
            summaries = RunSummaries(connection)
            active = summaries.active(since, cap)
            self._refresh(summaries, active.runs)
            states = sorted(self._known.values(), key=lambda state: state.run.name)
            return RunStates(active, states)

    def _refresh(self, summaries: RunSummaries, active: Sequence[Run]) -> None:
        changed = [run.number for run in active if self._revision_of(run) != run.revision]
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

    def _revision_of(self, run: Run) -> int:
        known = self._known.get(run.number)
        return 0 if known is None else known.run.revision


def _described(run: Run, known: ExportedRun | None) -> ExportedRun:
    if known is None:
        return ExportedRun(run, pair_precision(run.rollout_dtype, run.trainer_dtype), None)
    return ExportedRun(run, known.precision, known.step)


def _state(run: Run, last: LastStep) -> ExportedRun:
    precision = pair_precision(
        last.metadata.get("rollout_dtype", run.rollout_dtype),
        last.metadata.get("trainer_dtype", run.trainer_dtype),
    )
    weights = of_metadata(last.metadata)
    step = StepState(
        last.step,
        last.received_at,
        stored_numbers(last.analysis),
        None if weights is None else weights.matches,
    )
    return ExportedRun(run, precision, step)
