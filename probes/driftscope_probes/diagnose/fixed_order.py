"""One control after another: what each found, and how many it takes in fixed order.

In: a bench. Out: ControlRun values, and the number until one cause is as sure as for the planner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final, TypeVar

from driftscope_probes.diagnose.investigation import attempt
from driftscope_probes.diagnose.possible import possible_here
from driftscope_probes.diagnose.run import Found
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Outcome
from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.diagnosis.drill.planted.report import ControlRun
from driftscope_probes.diagnosis.planner import SURE_FROM, prior_of

T = TypeVar("T")
#: More likely than not.
EVEN: Final = 0.5


def without_outcome(name: str, reason: str, seconds: float, asked_by: str) -> ControlRun:
    return ControlRun(
        control=name,
        outcome=reason,
        what=None,
        value=None,
        expected=None,
        seconds=round(seconds, 2),
        asked_by=asked_by,
    )


def run_one(bench: Bench, control: Control, asked_by: str) -> ControlRun:
    started = time.monotonic()
    measured = attempt(control, bench)
    took = time.monotonic() - started
    if isinstance(measured, str):
        return without_outcome(control.name, measured, took, asked_by)
    return ControlRun(
        control=control.name,
        outcome=measured.outcome,
        what=measured.what,
        value=measured.value,
        expected=measured.expected,
        seconds=round(took, 2),
        asked_by=asked_by,
    )


def fixed_order(
    bench: Bench, found: Found, known: list[ControlRun], cause: str, *, run_all: bool
) -> tuple[list[ControlRun], int]:
    """Controls in the order of the registry until one cause is as sure as for the planner: what was
    run besides, and how many outcomes it took. What the planner has run is not run again; unless
    `run_all`, what would start an engine is not run either, and its outcome is the one that its
    table expects of the cause.
    """
    belief = possible_here(prior_of(found.diagnosis.causes), bench.sides, bench.known)
    outcomes = {run.control: run for run in known}
    more: list[ControlRun] = []
    count = 0
    asked = bench if run_all else Unasked.of(bench)
    for control in CONTROLS:
        if belief.leading[1] >= SURE_FROM:
            break
        if not control.needs <= bench.offers:
            continue
        run = outcomes.get(control.name)
        if run is None:
            try:
                run = run_one(asked, control, "fixed_order")
            except WouldRun:
                count += 1
                belief = belief.updated(control, _expected(control, cause))
                continue
            more.append(run)
        if run.exercised:
            count += 1
            belief = belief.updated(control, "clean" if run.outcome == "clean" else "dirty")
    return more, count


def _expected(control: Control, cause: str) -> Outcome:
    negative: Outcome = "dirty" if control.positive == "clean" else "clean"
    return control.positive if control.points_to.get(cause, 0.0) >= EVEN else negative


class WouldRun(Exception):
    """A control asked for something that no side has answered yet."""


class Unasked(Bench):
    """A bench that gives what was kept, and raises WouldRun for everything else."""

    @staticmethod
    def of(bench: Bench) -> Unasked:
        other = Unasked(bench.sides, bench._engine, bench._trainer, bench.known)
        other._kept = bench._kept
        return other

    def _once(self, asked: Hashable, run: Callable[[], T]) -> T:
        if asked not in self._kept:
            raise WouldRun
        return super()._once(asked, run)
