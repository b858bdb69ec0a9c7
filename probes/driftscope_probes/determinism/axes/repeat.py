"""Axes that ask the same again: in the same process, in a fresh one, and sampled with a seed."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.batch import ROWS_TOGETHER, Plan, Value
from driftscope_probes.determinism.request import MOST_BATCH, ROWS

MOST_RUNS = 100
FIRST_RUN = "first"


class RunToRun:
    """A batch of so many rows, and the same batch again, each time on an empty prefix cache.

    Every value is its own reference: the first run of as many rows. What is repeatable for a few
    rows need not be for many (vLLM, issue 51187: 8 rows at a time repeat, 44 do not).
    """

    setting = ROWS_TOGETHER
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (FIRST_RUN, *plan.request.rows_repeated)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        choice(reference, "reference of run_to_run", (FIRST_RUN,))
        rows = plan.rows(integer(value, self.setting, 1, MOST_BATCH))
        first, *again = (
            Job(plan.setup, plan.batch(rows, run=run)) for run in range(plan.request.runs)
        )
        return Case((first,), tuple(again))


class FreshProcess:
    """One batch in engine processes of their own: the engine is restarted between them."""

    setting = "process"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (0, 1)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        process = integer(value, self.setting, 0, MOST_RUNS)
        return Job(replace(plan.setup, process=process), plan.batch(plan.rows()))


class SeededSampling:
    """Temperature 1, a seed of its own per request; alone and in batches."""

    setting = "batch size"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (1, 2, ROWS)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        least = integer(reference, self.setting, 1, MOST_BATCH)
        size = integer(value, self.setting, 1, MOST_BATCH)
        seed = plan.request.seed
        count = -(-size // least) * least
        rows = [replace(plan.row(index), seed=seed + index) for index in range(count)]
        groups = [rows[start : start + least] for start in range(0, count, least)]
        alone = tuple(Job(plan.setup, plan.batch(group)) for group in groups)
        return Case(alone, (Job(plan.setup, plan.batch(rows[:size])),))
