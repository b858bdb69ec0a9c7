"""Axes of continuous batching: in which order, and how far apart, requests come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.batch import Row
from driftscope_probes.determinism.onset import Value
from driftscope_probes.determinism.plan import ROWS, Plan

FORWARD, REVERSED, INTERLEAVED = "forward", "reversed", "interleaved"
MOST_STEPS = 64


class ArrivalOrder:
    """Requests come one engine step apart, in another order."""

    setting = "order of arrival"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (FORWARD, REVERSED, INTERLEAVED)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        rows = plan.rows()
        orders = {
            FORWARD: rows,
            REVERSED: rows[::-1],
            # The first and the last half take turns: neighbours in time become strangers.
            INTERLEAVED: tuple(
                row
                for pair in zip(rows[: ROWS // 2], rows[ROWS // 2 :], strict=True)
                for row in pair
            ),
        }
        chosen = orders[choice(value, self.setting, tuple(orders))]
        return Job(plan.setup, plan.batch(apart(chosen, 1)))


class StaggeredArrival:
    """Requests are added while others decode, a number of engine steps apart."""

    setting = "engine steps between arrivals"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (0, 1, 2, 4)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        steps = integer(value, self.setting, 0, MOST_STEPS)
        return Job(plan.setup, plan.batch(apart(plan.rows(), steps)))


def apart(rows: Sequence[Row], steps: int) -> tuple[Row, ...]:
    return tuple(replace(row, arrival=index * steps) for index, row in enumerate(rows))
