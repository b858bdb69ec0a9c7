"""The drift of a run: worked out once per step, known to /metrics soon after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driftscope_service.runs.drift import RunDrift, RunDrifts
from driftscope_service.runs.store.runs import Run, RunRepository


def the_run(running: Any) -> Run:
    with running.service.database.read() as connection:
        run = RunRepository(connection).get("r")
    assert run is not None
    return run


def test_it_changes_with_a_step_and_only_then(running: Any, pushing: Any) -> None:
    drift = RunDrift()
    seen = []
    for step in (1, 2):
        assert pushing.push(pushing.same(), step=step).status_code == 201
        with running.service.database.read() as connection:
            seen += [drift.of(the_run(running), connection) for _ in range(2)]
    assert seen[0] is seen[1] and seen[2] is seen[3]
    assert [seen[0]["steps"], seen[2]["steps"]] == [1, 2]


def test_a_round_makes_it_known_until_the_run_is_not_asked_for(
    running: Any, pushing: Any, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    assert pushing.push(pushing.same()).status_code == 201
    run = the_run(running)
    drifts = RunDrifts(running.service.database, RunDrift())
    assert drifts.known([run]) == {}
    drifts.refresh([run])
    eventually(lambda: drifts.known([run]).keys() == {run.number})
    assert drifts.known([run])[run.number].drift["steps"] == 1
    assert drifts.known([]) == drifts.known([run]) == {}
    drifts.stop()
    drifts.stop()
    drifts.refresh([run])
    assert drifts.known([run]) == {}
