"""Axes that ask the same again: in the same process, in a fresh one, and sampled with a seed."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, integer
from driftscope_probes.determinism.batch import ROWS, Plan, Value
from driftscope_probes.determinism.request import MOST_BATCH

MOST_RUNS = 100


class RunToRun:
    """One batch again and again, each time on an empty prefix cache."""

    setting = "run"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return tuple(range(plan.request.runs))

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        run = integer(value, self.setting, 0, MOST_RUNS)
        return Job(plan.setup, plan.batch(plan.rows(), run=run))


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
