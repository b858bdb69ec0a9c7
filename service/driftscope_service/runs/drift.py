"""The drift of a run over its steps: computed once per step, and kept warm for /metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from driftscope_probes.diagnosis.cause import NamedCause
from driftscope_probes.drift import StepValues, drift_of
from driftscope_service.runs.course import RunCauses
from driftscope_service.runs.last_used import LastUsed
from driftscope_service.runs.store.attempts import AttemptRepository
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.steps import StepRepository
from driftscope_service.store.database import Database

#: A result takes kilobytes; more runs are rarely looked at side by side.
MAX_RUNS = 64
#: Takes most of a second; where a run is longer, what happened before is another drift.
MAX_STEPS = 10_000


class RunDrift:
    def __init__(self) -> None:
        self._drifts: LastUsed[tuple[int, int | None], dict[str, Any]] = LastUsed(MAX_RUNS)
        self.causes = RunCauses()

    def of(self, run: Run, connection: Connection, *, attempt: int | None = None) -> dict[str, Any]:
        """`run` as `connection` sees it: its series, with every resume in it, or one attempt."""

        def drift() -> dict[str, Any]:
            points = StepRepository(connection).latest_points(
                run.number, MAX_STEPS, attempt=attempt
            )
            resumed_at: list[int] = []
            if attempt is None:
                resumed_at = AttemptRepository(connection).resumed_at(run.number)
            values = [StepValues(point.step, point.series) for point in points]
            return drift_of(values, resumed_at=resumed_at).to_dict()

        return self._drifts.get((run.number, attempt), drift, version=run.revision)


@dataclass(frozen=True, slots=True)
class RunCourse:
    """What the steps of a run say together."""

    drift: Mapping[str, Any]  # Drift.to_dict()
    causes: tuple[NamedCause, ...]  # most likely first


#: A round is followed by a pause of this many times its length: a fifth of a core at most.
PAUSE_ROUNDS: Final = 4.0
_log = logging.getLogger("driftscope")


class RunDrifts:
    def __init__(self, database: Database, run_drift: RunDrift) -> None:
        self._database = database
        self._run_drift = run_drift
        self._lock = threading.Lock()
        self._known: dict[int, tuple[int, RunCourse]] = {}  # with the revision of its series
        self._round: threading.Thread | None = None
        self._next_round_at = 0.0
        self._stopping = threading.Event()

    def known(self, runs: Sequence[Run]) -> dict[int, RunCourse]:
        """By number of the run; a run whose course was never computed is missing."""
        with self._lock:
            active = {run.number for run in runs}
            self._known = {number: one for number, one in self._known.items() if number in active}
            return {number: course for number, (_, course) in self._known.items()}

    def refresh(self, runs: Sequence[Run]) -> None:
        """Begin a round on those with new steps, unless one is under way or it is too early."""
        with self._lock:
            changed = [run.name for run in runs if self._revision(run) != run.revision]
            busy = self._round is not None and self._round.is_alive()
            early = time.monotonic() < self._next_round_at
            if not changed or busy or early or self._stopping.is_set():
                return
            self._round = threading.Thread(
                target=self._work, args=(changed,), name="metrics-drift", daemon=True
            )
            self._round.start()

    def stop(self) -> None:
        """Waits for a run under way. May be called twice."""
        self._stopping.set()
        with self._lock:
            current = self._round
        if current is not None:
            current.join()

    def _revision(self, run: Run) -> int:
        known = self._known.get(run.number)
        return 0 if known is None else known[0]

    def _work(self, names: Sequence[str]) -> None:
        start = time.monotonic()
        try:
            for name in names:
                if self._stopping.is_set():
                    return
                self._update(name)
        except Exception:
            # The rest of the page must not depend on it.
            _log.exception("drift could not be worked out for /metrics")
        took = time.monotonic() - start
        with self._lock:
            self._next_round_at = time.monotonic() + PAUSE_ROUNDS * took

    def _update(self, name: str) -> None:
        with self._database.read() as connection:
            run = RunRepository(connection).get(name)
            if run is None:
                return  # deleted meanwhile
            drift = self._run_drift.of(run, connection)
            course = RunCourse(drift, self._run_drift.causes.of(run, connection))
        with self._lock:
            self._known[run.number] = (run.revision, course)
