"""The answer of a run, kept in its row: lists filter and sort by it without reading any step.

It is that of the last step, with what the steps together are surer of.
"""

from __future__ import annotations

from sqlalchemy import Connection, update

from driftscope_service.runs.course import HEALTHY, course_causes, named_by
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import StepVerdict, verdict_points
from driftscope_service.store.tables import runs

#: The latest of a longer run: reading them and looking at their course takes some 60 milliseconds,
#: for as long as the last step is not healthy.
MOST_STEPS = 600


def settle_answer(connection: Connection, name: str) -> None:
    """Within a write, after the row of the run says what its last step does."""
    run = RunRepository(connection).get(name)
    if run is None or run.verdict is None or run.verdict in HEALTHY:
        return
    own = StepVerdict(run.verdict, run.excess, run.cause, run.confidence)
    causes = course_causes(verdict_points(connection, run.number, MOST_STEPS))
    answer = named_by(own, causes)
    assert answer is not None, "a verdict stays one"
    if answer != own:
        connection.execute(
            update(runs)
            .where(runs.c.number == run.number)
            .values(cause=answer.cause, confidence=answer.confidence)
        )
