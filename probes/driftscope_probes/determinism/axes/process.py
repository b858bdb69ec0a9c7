"""Axes of how the engine's process computes: threads, compiled or eager, keys split or not."""

from __future__ import annotations

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.batch import Plan, Value
from driftscope_probes.engines.sessions.question import Setup

ON, OFF = "on", "off"
EAGER, COMPILED = "eager", "compiled"
MOST_THREADS = 1024


class Threads:
    """Number of threads; the reference is what every other axis runs with."""

    setting = "threads"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        used = plan.setup.engine.threads or 1
        return (used, 1) if used > 1 else (1, 2)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case(self._jobs(plan, reference), self._jobs(plan, value))

    def _jobs(self, plan: Plan, value: Value) -> tuple[Job, ...]:
        count = integer(value, self.setting, 1, MOST_THREADS)
        return jobs_of(plan, plan.setup.changed(threads=count))


class KvSplit:
    """vLLM on CPU: whether one sequence's keys may be divided among threads."""

    setting = "split of the keys"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (OFF, ON)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case(self._jobs(plan, reference), self._jobs(plan, value))

    def _jobs(self, plan: Plan, value: Value) -> tuple[Job, ...]:
        off = choice(value, self.setting, (ON, OFF)) == OFF
        # vLLM splits by default: what every other axis ran with can be used again.
        split = False if off else plan.setup.engine.attention_split_kv or None
        return jobs_of(plan, plan.setup.changed(attention_split_kv=split))


class Compiled:
    """Eager against torch.compile."""

    setting = "mode"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (EAGER, COMPILED)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case(self._jobs(plan, reference), self._jobs(plan, value))

    def _jobs(self, plan: Plan, value: Value) -> tuple[Job, ...]:
        compiled = choice(value, self.setting, (EAGER, COMPILED)) == COMPILED
        return jobs_of(plan, plan.setup.changed(compile=compiled))


def jobs_of(plan: Plan, setup: Setup) -> tuple[Job, ...]:
    """A long prompt alone, and the whole batch: a thread count may matter to either."""
    alone, together = plan.row(1), plan.rows()
    return Job(setup, plan.batch([alone])), Job(setup, plan.batch(together))
