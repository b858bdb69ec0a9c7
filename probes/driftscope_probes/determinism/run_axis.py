"""One axis against one runner: its cells, the comparison of every row, the onset.

In: a Plan, an Axis and a Runner. Out: an AxisReport without its replay command.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from driftscope_probes.determinism.axes.base import Axis, Case, Job
from driftscope_probes.determinism.axes.lifecycle import Replica, Restart
from driftscope_probes.determinism.axes.protocols import ThinkingMachines
from driftscope_probes.determinism.axes.repeat import FreshProcess, RunToRun
from driftscope_probes.determinism.batch import Plan, Value, find_onset
from driftscope_probes.determinism.report import (
    AxisReport,
    Measure,
    Subject,
    compare_outputs,
    measure,
    total,
)
from driftscope_probes.engines.sessions.question import Answer, Batch, Output, Row
from driftscope_probes.engines.sessions.runners import Runner
from driftscope_probes.errors import ProbeError, RequestError

#: Bisections between two tested values: enough for any gap below 256.
BISECT_BUDGET = 8

#: Jobs of the reference that are asked again where an axis differs: a batch of 44 rows is compared
#: with 44 of one row, and eight of them show whether the engine repeats itself.
CONTROLLED_JOBS = 8

Keyed = list[tuple[str, Output]]
Seen = dict[str, set[bytes]]


class NotExercised(ProbeError):
    """The engine did not do what the axis tests, so equal bits would show nothing."""


class AxisRun:
    """The outputs and cells of one axis as they come in."""

    def __init__(
        self, axis: Axis, plan: Plan, runner: Runner, on_cell: Callable[[Value], None]
    ) -> None:
        self._axis, self._plan, self._runner, self._on_cell = axis, plan, runner, on_cell
        self._completions: Seen = defaultdict(set)
        self._bits: Seen = defaultdict(set)
        self._hash = hashlib.sha256()
        self.cells: dict[Value, Measure] = {}

    def result(
        self,
        subject: Subject,
        values: Sequence[Value],
        bisect: bool,
        unrepeatable_from: int | None = None,
    ) -> AxisReport:
        """`unrepeatable_from`: rows together from which run_to_run found other bits. Raises
        ProbeError.
        """
        started = time.monotonic()
        for value in values[1:]:
            self._measure(values[0], value)
        onset = find_onset(
            self._axis.setting,
            values,
            {value: cell.differs for value, cell in self.cells.items()},
            lambda value: self._measure(values[0], value).differs,
            ordered=self._axis.ordered,
            budget=BISECT_BUDGET if bisect else 0,
        )
        cells = outwards(self.cells, values[0]) if self._axis.ordered else self.cells
        unique = _most(self._completions), _most(self._bits)
        return AxisReport.run(
            subject,
            values[0],
            total(list(cells.values()), *unique),
            cells,
            onset,
            not_repeatable=None
            if onset is None
            else self._not_repeatable(values[0], onset.differs_from, unrepeatable_from),
            bits=self._hash.hexdigest() if self._repeats() else None,
            seconds=time.monotonic() - started,
        )

    def _repeats(self) -> bool:
        """Whether the same request gives the same bits again, as far as this axis shows.

        A server forms its own batches; two runs, or processes, that differ show that themselves.
        """
        repeated = isinstance(self._axis, RunToRun | FreshProcess | Restart | Replica)
        differs = any(cell.differs for cell in self.cells.values())
        return not self._plan.on_server and not (repeated and differs)

    def _not_repeatable(
        self, reference: Value, value: Value, unrepeatable_from: int | None
    ) -> str | None:
        """The control of a difference: either side asked again, with nothing changed.

        Why the axis is not to blame; None where both sides repeat, or the axis itself repeats.
        """
        if isinstance(self._axis, RunToRun | ThinkingMachines):
            return None
        case = self._axis.case(self._plan, reference, value)
        most = max(len(job.batch.rows) for job in (*case.variant, *case.reference))
        if unrepeatable_from is not None and most >= unrepeatable_from:
            return _no_blame(most, self._axis.setting)
        jobs = (*case.variant, *case.reference[:CONTROLLED_JOBS])
        # Where the sides are two engines, the usual one's repeatability is what run_to_run is for:
        # to start it again for the control would double the time of the axis.
        others = [job for job in jobs if job.setup != self._plan.setup]
        for job in others or jobs:
            if not self._job_repeats(job):
                return _no_blame(len(job.batch.rows), self._axis.setting)
        return None

    def _job_repeats(self, job: Job) -> bool:
        job = replace(job, demand=None)
        first = run_job(self._runner, job)
        for run in range(1, self._plan.request.runs):
            again = run_job(self._runner, replace(job, batch=replace(job.batch, run=run)))
            pairs = zip(first, again, strict=True)
            if not all(compare_outputs(one, other).equal for (_, one), (_, other) in pairs):
                return False
        return True

    def _measure(self, reference: Value, value: Value) -> Measure:
        self._on_cell(value)
        case = self._axis.case(self._plan, reference, value)
        expected, outputs = self._sides(case)
        first = dict(reversed(expected))
        rows = [(key, compare_outputs(first[key], output)) for key, output in outputs]
        completions: Seen = defaultdict(set)
        bits: Seen = defaultdict(set)
        compared = dict(outputs).keys()
        for key, output in expected + outputs:
            self._hash.update(key.encode() + output.token_ids.tobytes() + output.logprobs.tobytes())
            # The reference may hold rows that this cell does not compare.
            if key in compared:
                completions[key].add(output.token_ids.tobytes())
                bits[key].add(output.token_ids.tobytes() + output.logprobs.tobytes())
        _merge(self._completions, completions)
        _merge(self._bits, bits)
        self.cells[value] = measure(value, rows, _most(completions), _most(bits))
        return self.cells[value]

    def _sides(self, case: Case) -> tuple[Keyed, Keyed]:
        expected = [pair for job in case.reference for pair in run_job(self._runner, job)]
        outputs = [pair for job in case.variant for pair in run_job(self._runner, job)]
        return expected, outputs


def _no_blame(rows: int, setting: str) -> str:
    asked = (
        "the same row asked again gives" if rows == 1 else f"the same {rows} rows asked again give"
    )
    return f"{asked} other bits, so the {setting} is not what explains the difference"


def outwards(cells: Mapping[Value, Measure], reference: Value) -> dict[Value, Measure]:
    """Cells added by bisection come between the given ones; names come last."""

    start = reference if isinstance(reference, int) else 0

    def distance(value: Value) -> float:
        return abs(value - start) if isinstance(value, int) else math.inf

    return {value: cells[value] for value in sorted(cells, key=distance)}


def run_job(runner: Runner, job: Job) -> Keyed:
    """Key and output of every row that is to be compared. Raises ProbeError, NotExercised."""
    _check_length(job)
    answer = runner.run(job.setup, job.batch)
    _check_demand(job, answer)
    outputs = answer.outputs
    if job.rescore:
        outputs = tuple(
            runner.run(job.setup, _as_prompt(job.batch, row, output)).outputs[0]
            for row, output in zip(job.batch.rows, outputs, strict=True)
        )
    rows = zip(job.batch.rows, outputs, strict=True)
    return [(row.key, output) for row, output in rows if row.key]


def _as_prompt(batch: Batch, row: Row, output: Output) -> Batch:
    return replace(batch, rows=(replace(row, score=tuple(output.token_ids.tolist())),))


def _check_length(job: Job) -> None:
    longest = max(len(row.prompt) for row in job.batch.rows)
    if longest + job.batch.max_tokens > job.setup.context:
        raise RequestError(
            f"a prompt of {longest} tokens and {job.batch.max_tokens} more exceed the "
            f"{job.setup.context} tokens that the engine is given.",
            remedy="raise --prompt-tokens to that length too, or give smaller values.",
        )


def _check_demand(job: Job, answer: Answer) -> None:
    if job.demand == "preemption" and not answer.preemptions:
        raise NotExercised(
            "the engine preempted no request", remedy="lower the cache or raise max_tokens."
        )
    if job.demand == "cached" and not answer.cached_tokens:
        raise NotExercised(
            "the engine took no token from its prefix cache"
            + (", or does not tell" if answer.cached_tokens is None else ""),
            remedy="turn its cache on; a server needs --enable-prompt-tokens-details too.",
        )


def _merge(into: Seen, more: Mapping[str, set[bytes]]) -> None:
    for key, seen in more.items():
        into[key] |= seen


def _most(seen: Mapping[str, set[bytes]]) -> int:
    return max(map(len, seen.values()))
