"""The state of a run from the store: the last step's crossed limits, and drift where asked for."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from driftscope_service.service import Service
from driftscope_service.store.run_repository import Run
from driftscope_service.store.step_repository import StepRepository
from driftscope_service.web.moment import RunState
from driftscope_service.web.run_state import NO_STEPS, run_state


def run_verdict(service: Service, connection: Connection, run: Run, *, drift: bool) -> RunState:
    """`drift`: work it out, which takes up to a second for ten thousand steps."""
    if run.last_step is None:
        return NO_STEPS
    found = service.run_drift.of(run, connection) if drift else None
    return run_state(run.last_step, crossed_at(connection, run.name, run.last_step), found)


def crossed_at(connection: Connection, run: str, step: int) -> list[dict[str, Any]]:
    stored = StepRepository(connection).get(run, step)
    assert stored is not None, "a last step is complete"
    crossed: list[dict[str, Any]] = json.loads(stored.analysis)["crossed_limits"]
    return crossed
