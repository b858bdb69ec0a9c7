"""Axes of the batch: its size, neighbours and position, and when its requests arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.batch import Plan, Value
from driftscope_probes.determinism.request import MOST_BATCH, ROWS
from driftscope_probes.engines.sessions.question import Row

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
            # The two halves alternate, so that former neighbours in time are separated.
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


#: Neighbours far shorter and far longer than the rows that are compared, in tokens.
NEIGHBOUR_TOKENS = (16, 64, 192)
MOST_NEIGHBOUR_TOKENS = 8192
OTHER_CONTENT = "other content"
#: Rows that are compared among neighbours: a short and a long one of the default prompts.
TARGETS = 2


class BatchSize:
    """The first B prompts in one batch; the reference are the same prompts in smaller ones."""

    setting = "batch size"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return tuple(sorted(plan.request.batch_sizes))

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        least = integer(reference, self.setting, 1, MOST_BATCH)
        size = integer(value, self.setting, 1, MOST_BATCH)
        count = -(-size // least) * least
        groups = [range(start, start + least) for start in range(0, count, least)]
        alone = [plan.batch([plan.row(index) for index in group]) for group in groups]
        together = plan.batch(plan.rows(size))
        return Case(tuple(Job(plan.setup, batch) for batch in alone), (Job(plan.setup, together),))


class Position:
    """One batch, its rows rotated: every row is compared at every other position."""

    setting = "places moved"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (0, 1, ROWS // 2, ROWS - 1)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        shift = integer(value, self.setting, 0, ROWS - 1)
        rows = plan.rows()
        return Job(plan.setup, plan.batch(rows[shift:] + rows[:shift]))


class Neighbours:
    """The same rows in the same positions among others of another length or content."""

    setting = "tokens of each neighbour"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (*NEIGHBOUR_TOKENS, OTHER_CONTENT)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        first, length = TARGETS, NEIGHBOUR_TOKENS[0]
        if isinstance(value, str):
            choice(value, "neighbour", (OTHER_CONTENT,))
            first = ROWS
        else:
            length = integer(value, self.setting, 1, MOST_NEIGHBOUR_TOKENS)
        others = [plan.row(first + index, length) for index in range(ROWS - TARGETS)]
        # A key of its own: neighbours of another content are not the same request.
        marked = [replace(row, key=NEIGHBOUR) for row in others]
        rows = plan.rows(TARGETS)
        return Job(plan.setup, plan.batch([rows[0], *marked, *rows[1:]]))


#: Key of rows that are only company; they are not compared.
NEIGHBOUR = ""
