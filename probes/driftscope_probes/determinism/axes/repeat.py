"""Axes of doing the same again: in one process, and in a fresh one."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, integer
from driftscope_probes.determinism.onset import Value
from driftscope_probes.determinism.plan import Plan

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
