"""Axes of an engine's life: launched again, beside another, put to sleep, its weights reloaded."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.axes.repeat import MOST_RUNS
from driftscope_probes.determinism.batch import Plan, Value
from driftscope_probes.engines.sessions.question import Event

BEFORE, AFTER = "before", "after"


class Restart:
    """Several launches, each asked several times: equal inside one, different between two?

    Kernels that are chosen by timing at each launch repeat themselves until the next one. What a
    launch is asked again is asked while it is up: a launch that has ended cannot be had again. So
    it comes before `fresh_process`, which then has its launches already.
    """

    setting = "launch"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (0, 1, 2)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case(self._jobs(plan, reference), self._jobs(plan, value))

    def _jobs(self, plan: Plan, value: Value) -> tuple[Job, ...]:
        setup = replace(plan.setup, process=integer(value, self.setting, 0, MOST_RUNS))
        rows = plan.rows()
        return tuple(Job(setup, plan.batch(rows, run=run)) for run in range(plan.request.runs))


class Replica:
    """Two engines that are up at the same time, with the same settings and weights."""

    setting = "replica"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (0, 1)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        replica = integer(value, self.setting, 0, MOST_RUNS)
        return Job(replace(plan.setup, replica=replica), plan.batch(plan.rows()))


class _AcrossAnEvent:
    """One engine before and after something that must not change it."""

    setting: str
    ordered = False
    event: Event

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (BEFORE, AFTER)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        after = choice(value, self.setting, (BEFORE, AFTER)) == AFTER
        batch = plan.batch(plan.rows())
        return Job(plan.setup, replace(batch, before=(self.event,) if after else ()))


class SleepWake(_AcrossAnEvent):
    """The engine lets go of its memory and takes it back. On a CPU vLLM only pauses."""

    setting = "sleep"
    event: Event = "sleep_wake"


class Reload(_AcrossAnEvent):
    """The same weights are loaded into the running engine, as a sync does it."""

    setting = "reload of the same weights"
    event: Event = "reload"
