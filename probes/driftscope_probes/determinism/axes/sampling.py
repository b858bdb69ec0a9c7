"""Axis of seeded sampling: a request's own seed decides its tokens, whatever its batch."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, integer
from driftscope_probes.determinism.onset import Value
from driftscope_probes.determinism.plan import ROWS, Plan
from driftscope_probes.determinism.request import MOST_BATCH


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
