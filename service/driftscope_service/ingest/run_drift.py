"""Drift over the steps of a run, worked out again only when a step was added.

In: a run. Out: `Drift.to_dict()`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from sqlalchemy import Connection

from driftscope_probes.drift import StepValues, drift_of
from driftscope_service.store.run_repository import Run
from driftscope_service.store.step_repository import StepRepository

#: A result takes kilobytes; more runs are rarely looked at side by side.
MAX_RUNS = 64
#: Takes most of a second; where a run is longer, what happened before is another drift.
MAX_STEPS = 10_000


class RunDrift:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[int, dict[str, Any]]] = OrderedDict()

    def of(self, run: Run, connection: Connection) -> dict[str, Any]:
        """`run` as `connection` sees it."""
        with self._lock:
            steps, drift = self._known.get(run.number, (None, {}))
        # A complete step never changes, so that their number tells one state from the next.
        if steps == run.complete_steps:
            return drift
        points = StepRepository(connection).latest_points(run.number, MAX_STEPS)
        drift = drift_of([StepValues(point.step, point.series) for point in points]).to_dict()
        with self._lock:
            self._known[run.number] = (run.complete_steps, drift)
            self._known.move_to_end(run.number)
            while len(self._known) > MAX_RUNS:
                self._known.popitem(last=False)
        return drift
