"""Families of pushed runs. In: run states and drift. Out: Family."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import NAMED_FROM, NamedCause
from driftscope_probes.mismatch.histogram import EDGES
from driftscope_probes.mismatch.thresholds import THRESHOLDS, Direction, Precision
from driftscope_probes.numbers import NUMBERS
from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.metrics import metric_names as names
from driftscope_service.metrics.exposition import Exemplar, Families, Family, Lines
from driftscope_service.numbers.diagnosis_words import UNEXPLAINED
from driftscope_service.pages.navigation import step_page
from driftscope_service.runs.course import HEALTHY
from driftscope_service.runs.drift import RunCourse
from driftscope_service.runs.run_states import DiagnosedNumbers, ExportedRun, RunStates, StepState
from driftscope_service.runs.store.runs import Run


@dataclass(frozen=True, slots=True)
class ThresholdState:
    metric: str
    direction: Direction
    threshold: float
    #: (value − ideal) / (threshold − ideal): 1 is at the threshold, in any unit and for any dtype.
    #: None: no value, or the ideal itself is the threshold.
    used: float | None
    over: bool


def threshold_states(
    comparison: Mapping[str, Any],
    precision: Precision,
    overflowed: Collection[str],  # names of metrics that crossed without a finite value
) -> Iterator[ThresholdState]:
    for one in THRESHOLDS:
        threshold, ideal = one.values[precision], NUMBERS[one.metric].ideal
        value = comparison.get(one.metric)
        if one.metric in overflowed:
            value = math.inf if one.direction == "above" else -math.inf
        over = value is not None and (
            value > threshold if one.direction == "above" else value < threshold
        )
        used = None
        if value is not None and threshold != ideal:
            used = (value - ideal) / (threshold - ideal)
        yield ThresholdState(one.metric, one.direction, threshold, used, over)


#: Text that describes a run may be longer than Prometheus accepts in a label.
MAX_LABEL_CHARACTERS: Final = 128
#: One bucket per octave from 1e-6 nats, where float32 rounding is, to 16: all that plots tell
#: apart. The edges are among those of the stored histogram, so that counts stay exact.
FIRST_EDGE, LAST_EDGE = 2.0**-20, 2.0**4
EXPORTED_EDGES: Final = tuple(
    (index, edge)
    for index, edge in enumerate(EDGES)
    if FIRST_EDGE <= edge <= LAST_EDGE and (edge.hex().startswith("0x1.0000000000000p"))
)
_Lines = Mapping[str, Lines]  # by name of the metric


@dataclass(frozen=True, slots=True)
class _Written:
    state: ExportedRun
    course: RunCourse | None
    lines: _Lines


class RunFamilies:
    def __init__(self) -> None:
        self._written: dict[int, _Written] = {}

    def families(self, states: RunStates, courses: Mapping[int, RunCourse]) -> Iterator[Family]:
        # Another scrape may replace it meanwhile.
        written = self._written = {
            state.run.number: self._of(state, courses.get(state.run.number))
            for state in states.states
        }
        yield _counts(states)
        for metric in names.RUN_METRICS:
            family = Family(metric)
            for each in written.values():
                if metric.name in each.lines:
                    family.extend(each.lines[metric.name])
            yield family

    def _of(self, state: ExportedRun, course: RunCourse | None) -> _Written:
        written = self._written.get(state.run.number)
        if written is not None and written.state is state and written.course is course:
            return written
        return _Written(state, course, _lines(state, course))


def _counts(states: RunStates) -> Family:
    family = Family(names.RUNS)
    exported = len(states.states)
    active = states.active
    for state, number in zip(
        names.RUN_STATES, (exported, active.active - exported, active.idle), strict=True
    ):
        family.add([state], number)
    return family


def _lines(state: ExportedRun, course: RunCourse | None) -> _Lines:
    families = Families()
    _add_run(families, state)
    if state.step is not None:
        _add_step(families, state.run.name, state.step)
        if state.step.weights_match is not None:
            families.of(names.RUN_WEIGHTS_MATCH).add([state.run.name], state.step.weights_match)
        if state.step.numbers.diagnosis is not None:
            causes = () if course is None else course.causes
            _add_diagnosis(families, state.run.name, state.step.numbers.diagnosis, causes)
        _add_thresholds(families, state, state.step)
    if course is not None:
        _add_drift(families, state.run.name, course.drift)
    return families.lines()


def _add_run(families: Families, state: ExportedRun) -> None:
    run = state.run
    texts = (run.model, run.framework, run.engine, run.rollout_dtype, run.trainer_dtype)
    described = [(text or "")[:MAX_LABEL_CHARACTERS] for text in texts]
    families.of(names.RUN_INFO).add([run.name, *described, state.precision], 1.0)
    families.of(names.RUN_FINISHED).add([run.name], run.finished_at is not None)
    families.of(names.RUN_STEPS).add([run.name], run.received_steps)
    families.of(names.RUN_REFUSED).add([run.name], run.refused_steps)
    families.of(names.RUN_ATTEMPTS).add([run.name], run.attempt)
    families.of(names.RUN_TOKENS).add([run.name], run.compared_tokens)
    families.of(names.RUN_NONFINITE).add([run.name], run.nonfinite_tokens)
    families.of(names.RUN_CONFIDENT).add([run.name], run.confident_disagreements)
    if run.last_step is not None:
        families.of(names.RUN_LAST_STEP).add([run.name], run.last_step)
    if run.last_step_at is not None:
        families.of(names.RUN_LAST_STEP_TIME).add([run.name], run.last_step_at.timestamp())
    interval = _step_interval(run)
    if interval is not None:
        families.of(names.RUN_STEP_INTERVAL).add([run.name], interval)


def _step_interval(run: Run) -> float | None:
    """The run begins with its first step or a PUT shortly before."""
    if run.last_step_at is None or run.received_steps < 2:
        return None
    lasted = (run.last_step_at - run.created_at).total_seconds()
    return max(0.0, lasted) / (run.received_steps - 1)


def _add_step(families: Families, run: str, step: StepState) -> None:
    comparison, histogram = step.numbers.comparison, step.numbers.abs_diff_histogram
    for sample in names.RUN_SAMPLES:
        value = comparison.get(sample.source)
        if value is not None:
            families.of(sample.metric).add([run, *sample.more_labels], value)
    if histogram is not None:
        _add_histogram(families.of(names.RUN_ABS_DIFF), run, step, histogram)


def _add_diagnosis(
    families: Families,
    run: str,
    diagnosis: DiagnosedNumbers,
    course: Collection[NamedCause],  # what the steps of the run say together
) -> None:
    families.of(names.RUN_VERDICT).add([run], COMPARISON_RANK[diagnosis.verdict])
    if diagnosis.excess is not None:
        families.of(names.RUN_EXCESS).add([run], diagnosis.excess)
    sure = dict(diagnosis.causes)
    if diagnosis.verdict not in HEALTHY:
        for cause in course:
            sure[cause.name] = max(sure.get(cause.name, 0.0), cause.confidence)
    for name, confidence in sure.items():
        if name in catalogue().by_name:  # bounds the label: another version may have known others
            families.of(names.RUN_CAUSE).add([run, name], confidence)
    if diagnosis.unexplained and max(sure.values(), default=0.0) < NAMED_FROM:
        families.of(names.RUN_CAUSE).add([run, UNEXPLAINED], 1.0)


def _add_histogram(family: Family, run: str, step: StepState, histogram: Mapping[str, Any]) -> None:
    exact = histogram["zero"]
    # Number of tokens up to each edge.
    up_to = list(accumulate(histogram["counts"], initial=exact + histogram["below"]))
    buckets = [(0.0, exact)]
    buckets += [(edge, up_to[index]) for index, edge in EXPORTED_EDGES]
    buckets.append((float("inf"), up_to[-1] + histogram["above"]))
    family.add_distribution([run], buckets, histogram["abs_diff_sum"], _exemplar(run, step))


def _exemplar(run: str, step: StepState) -> Exemplar | None:
    """The token that differs most, with the page that shows it."""
    largest = step.numbers.comparison.get("abs_diff_max")
    if largest is None:
        return None
    page = step_page(run, step.step)
    exemplar = Exemplar("page", page, largest, step.received_at.timestamp())
    return exemplar if exemplar.fits else None


def _add_thresholds(families: Families, state: ExportedRun, step: StepState) -> None:
    numbers = step.numbers
    for one in threshold_states(numbers.comparison, state.precision, numbers.overflowed):
        labels = [state.run.name, one.metric, one.direction]
        families.of(names.RUN_LIMIT).add(labels, one.threshold)
        families.of(names.RUN_OVER_LIMIT).add(labels, one.over)
        if one.used is not None:
            families.of(names.RUN_LIMIT_USED).add(labels, one.used)


def _add_drift(families: Families, run: str, drift: Mapping[str, Any]) -> None:
    for state in names.DRIFT_STATES:
        families.of(names.RUN_DRIFT_STATE).add([run, state], drift["state"] == state)
    for metric, moved in drift["metrics"].items():
        if moved["state"] in ("shifted", "trending"):
            families.of(names.RUN_METRIC_DRIFT).add([run, metric, moved["state"]], 1.0)
        if moved["change_points"]:
            last = moved["change_points"][-1]
            families.of(names.RUN_CHANGE_STEP).add([run, metric], last["step"])
            if last["ratio"] is not None:
                families.of(names.RUN_CHANGE).add([run, metric], last["ratio"])
        if moved["trend"] is not None and NUMBERS[metric].scale == "log":
            # On the linear scale it is in the number's own unit, not a ratio.
            families.of(names.RUN_TREND).add([run, metric], moved["trend"]["per_100_steps"])
